"""A difference of two tensors of one shape."""

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Sub",)


def convert(here: OnnxNode) -> None:
    """A sub."""
    a, b = here.tensor(0), here.tensor(1)
    if here.shape(a) != here.shape(b) or (a.axes, a.mixed) != (b.axes, b.mixed):
        raise Unsupported(f"it takes shapes {here.shape(a)} and {here.shape(b)}, or two arrangements")
    here.give(here.graph.sub(here.name, a.tensor, b.tensor), a.axes, a.mixed)
