"""Identity, Dropout in inference and Cast to floats give what they get; Cast to whole numbers or truth cuts it off.

Forward only where it cuts: gradients stop there.
"""

from ..value import FLOATS, Unsupported
from ..walk import OnnxNode

WHOLE, TRUTH = (2, 3, 4, 5, 6, 7, 12, 13), 9  # ONNX's numbers of integers, and of bool
TOWARDS_0 = 3
OPERATORS = ("Identity", "Dropout", "Cast")


def convert(here: OnnxNode) -> None:
    """No node of ours, a staircase or a by_sign."""
    x, to = here.tensor(0), here.attr("to") if here.op == "Cast" else FLOATS[0]
    if to in WHOLE:
        here.like(here.graph.staircase(here.name, x.tensor, TOWARDS_0), x)
    elif to == TRUTH:
        here.like(here.graph.by_sign(here.name, x.tensor, 1.0, 0.0, 1.0), x)
    elif to in FLOATS:
        here.like(x.tensor, x)
    else:
        raise Unsupported("it casts to what is neither a float of 32 or 64 bits, a whole number nor a truth")
