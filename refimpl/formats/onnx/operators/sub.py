"""A difference of two tensors of one shape."""

from ..value import Unsupported
from ..walk import Step

OPERATORS = ("Sub",)


def convert(step: Step) -> None:
    """A sub."""
    a, b = step.tensor(0), step.tensor(1)
    if step.shape(a) != step.shape(b) or (a.axes, a.mixed) != (b.axes, b.mixed):
        raise Unsupported(f"it takes shapes {step.shape(a)} and {step.shape(b)}, or two arrangements")
    step.give(step.graph.sub(step.name, a.tensor, b.tensor), a.axes, a.mixed)
