"""Transpose: another order of the axes, which nothing of ours has to follow."""

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Transpose",)


def convert(here: OnnxNode) -> None:
    """No node of ours."""
    x = here.tensor(0)
    perm = here.attr("perm", tuple(reversed(range(len(x.axes)))))
    if perm[0] != 0 or x.mixed:
        raise Unsupported(f"it puts samples elsewhere, or mixes what is flattened: {perm}")
    here.give(x.tensor, [x.axes[i] for i in perm])
