"""ArgMax and ArgMin: places of maxima or minima along an axis, as floats. Forward only: gradients stop here.

At the end of a net it is left out, as Softmax is: a loss takes scores.
"""

from collections.abc import Sequence

from ..layout import SAMPLES
from ..value import Unsupported
from ..walk import OnnxNode
from .means import reduced
from .softmax import left_out

OPERATORS = ("ArgMax", "ArgMin")


def convert(here: OnnxNode) -> None:
    """An arg_max, of what is taken or of its negative; or no node of ours."""
    x = here.tensor(0)
    axis = int(here.attr("axis", 0)) % len(x.shape)
    if SAMPLES in x.layout[axis]:
        raise Unsupported("it looks for a place among the samples")
    if not left_out(here):
        reduced(here, x, {axis}, bool(here.attr("keepdims", 1)), made)


def made(here: OnnxNode, x: str, over: Sequence[int]) -> str:
    """What a node makes of our map."""
    if here.op == "ArgMin":
        x = here.graph.affine(here.walk.unique(f"{here.name}.negative"), x, -1.0)
    return here.graph.arg_max(here.name, x, over, bool(here.attr("select_last_index", 0)))
