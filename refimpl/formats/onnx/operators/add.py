"""A sum of two tensors of one shape; of a tensor and 0, as a sum of a list begins, no node."""

from ..value import Unsupported, Value
from ..walk import Step

OPERATORS = ("Add",)


def convert(step: Step) -> None:
    """An add, or what 0 is added to."""
    if step.alone() == 0:
        x = next(v for v in (step.value(0), step.value(1)) if isinstance(v, Value))
        step.give(x.tensor, x.axes, x.mixed)
        return
    a, b = step.tensor(0), step.tensor(1)
    if step.shape(a) != step.shape(b):
        raise Unsupported(f"it adds shapes {step.shape(a)} and {step.shape(b)}")
    if (a.axes, a.mixed) != (b.axes, b.mixed):
        raise Unsupported("its inputs are arranged in two ways")
    step.give(step.graph.add(step.name, a.tensor, b.tensor), a.axes, a.mixed)
