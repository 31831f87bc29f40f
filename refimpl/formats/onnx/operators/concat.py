"""Concat along channels, or along features."""

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Concat",)


def convert(here: OnnxNode) -> None:
    """A concat along our last axis."""
    values = [here.tensor(i) for i in range(len(here))]
    first = values[0]
    axis = int(here.attr("axis")) % len(first.axes)
    if any(v.axes != first.axes or v.mixed for v in values):
        raise Unsupported("its inputs are arranged in several ways")
    if first.axes[axis] != len(here.graph.shape(first.tensor)) - 1:
        raise Unsupported(f"it joins along axis {axis}, which is none of channels")
    here.give(here.graph.concat(here.name, *(v.tensor for v in values)), first.axes)
