"""Add of two tensors of one shape."""

from ..value import Unsupported
from ..walk import Step

OPERATORS = ("Add",)


def convert(step: Step) -> None:
    """An add."""
    a, b = step.tensor(0), step.tensor(1)
    if step.shape(a) != step.shape(b):
        raise Unsupported(f"it adds shapes {step.shape(a)} and {step.shape(b)}")
    if (a.axes, a.mixed) != (b.axes, b.mixed):
        raise Unsupported("its inputs are arranged in two ways")
    step.give(step.graph.add(step.name, a.tensor, b.tensor), a.axes, a.mixed)
