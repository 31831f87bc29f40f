"""Transpose: another order of the axes, which nothing of ours has to follow."""

from ..value import Unsupported
from ..walk import Step

OPERATORS = ("Transpose",)


def convert(step: Step) -> None:
    """No node of ours."""
    x = step.tensor(0)
    perm = step.attr("perm", tuple(reversed(range(len(x.axes)))))
    if perm[0] != 0 or x.mixed:
        raise Unsupported(f"it puts samples elsewhere, or mixes what is flattened: {perm}")
    step.give(x.tensor, [x.axes[i] for i in perm])
