"""A sum of two tensors of one shape; of a tensor and 0, as a sum of a list begins, no node."""

from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("Add",)


def convert(here: OnnxNode) -> None:
    """An add, or what 0 is added to."""
    if here.alone() == 0:
        x = next(v for v in (here.value(0), here.value(1)) if isinstance(v, Value))
        here.give(x.tensor, x.axes, x.mixed)
        return
    a, b = here.tensor(0), here.tensor(1)
    if here.shape(a) != here.shape(b):
        raise Unsupported(f"it adds shapes {here.shape(a)} and {here.shape(b)}")
    if (a.axes, a.mixed) != (b.axes, b.mixed):
        raise Unsupported("its inputs are arranged in two ways")
    here.give(here.graph.add(here.name, a.tensor, b.tensor), a.axes, a.mixed)
