"""A sum of two tensors of one shape; of a tensor and 0, as a sum of a list begins, no node."""

from ..value import Value
from ..walk import OnnxNode

OPERATORS = ("Add",)


def convert(here: OnnxNode) -> None:
    """An add, or what 0 is added to."""
    if here.alone() == 0:
        x = next(v for v in (here.value(0), here.value(1)) if isinstance(v, Value))
        here.like(x.tensor, x)
        return
    a, b, x = here.pair()
    here.like(here.graph.add(here.name, a, b), x)
