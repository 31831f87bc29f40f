"""A product of two tensors of one shape, or of a map and a factor for each of its channels."""

from ..value import MAP, ROW, Unsupported
from ..walk import OnnxNode

OPERATORS = ("Mul",)


def convert(here: OnnxNode) -> None:
    """A mul, or a scale_channels."""
    a, b = here.tensor(0), here.tensor(1)
    if here.shape(a) == here.shape(b):
        if (a.axes, a.mixed) != (b.axes, b.mixed):
            raise Unsupported("its inputs are arranged in two ways")
        here.give(here.graph.mul(here.name, a.tensor, b.tensor), a.axes, a.mixed)
        return
    if set(here.shape(a)[2:]) == {1}:
        a, b = b, a
    if here.shape(a)[:2] != here.shape(b)[:2] or set(here.shape(b)[2:]) != {1} or a.axes not in (MAP, ROW):
        raise Unsupported(f"it multiplies shapes {here.shape(a)} and {here.shape(b)}")
    here.give(here.graph.scale_channels(here.name, a.tensor, here.walk.features(b).tensor), a.axes)
