"""Concat along channels, or along features."""

from ..value import Unsupported
from ..walk import Step

OPERATORS = ("Concat",)


def convert(step: Step) -> None:
    """A concat along our last axis."""
    values = [step.tensor(i) for i in range(len(step))]
    first = values[0]
    axis = int(step.attr("axis")) % len(first.axes)
    if any(v.axes != first.axes or v.mixed for v in values):
        raise Unsupported("its inputs are arranged in several ways")
    if first.axes[axis] != len(step.graph.shape(first.tensor)) - 1:
        raise Unsupported(f"it joins along axis {axis}, which is none of channels")
    step.give(step.graph.concat(step.name, *(v.tensor for v in values)), first.axes)
