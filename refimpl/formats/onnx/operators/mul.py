"""A product of two tensors of one shape, or of a map and a factor for each of its channels."""

from ..value import MAP, ROW, Unsupported
from ..walk import Step

OPERATORS = ("Mul",)


def convert(step: Step) -> None:
    """A mul, or a scale_channels."""
    a, b = step.tensor(0), step.tensor(1)
    if step.shape(a) == step.shape(b):
        if (a.axes, a.mixed) != (b.axes, b.mixed):
            raise Unsupported("its inputs are arranged in two ways")
        step.give(step.graph.mul(step.name, a.tensor, b.tensor), a.axes, a.mixed)
        return
    if set(step.shape(a)[2:]) == {1}:
        a, b = b, a
    if step.shape(a)[:2] != step.shape(b)[:2] or set(step.shape(b)[2:]) != {1} or a.axes not in (MAP, ROW):
        raise Unsupported(f"it multiplies shapes {step.shape(a)} and {step.shape(b)}")
    step.give(step.graph.scale_channels(step.name, a.tensor, step.walk.features(b).tensor), a.axes)
