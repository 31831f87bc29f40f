"""Identity, Dropout in inference and Cast to floats give what they get; Cast to whole numbers or truth cuts it off.

Forward only where it cuts: gradients stop there. A Cast of whole numbers to the dtype that they have, as PyTorch's
exporter writes it behind QuantizeLinear, gives what it gets too.
"""

from ..value import FLOATS, Unsupported
from ..walk import IN_TRAINING, OnnxNode

WHOLE, TRUTH = (2, 3, 4, 5, 6, 7, 12, 13), 9  # ONNX's numbers of integers, and of bool
MAPS = {"uint8": 2, "int8": 3}  # of the dtypes of quantized maps
TOWARDS_0 = 3
OPERATORS = ("Identity", "Dropout", "Cast")


def convert(here: OnnxNode) -> None:
    """No node of ours, a staircase or a by_sign."""
    if here.op == "Dropout" and here.given(2) and here.constant(2, "training mode").any():
        here.walk.note(IN_TRAINING)
    x, to = here.padded(0), here.attr("to") if here.op == "Cast" else FLOATS[0]
    mark = here.walk.marks.get(x.tensor)
    if to in FLOATS or mark is not None and to == MAPS.get(mark.dtype.name):
        here.like(x.tensor, x, pad=x.pad)
    elif to in WHOLE:
        here.like(here.graph.staircase(here.name, here.tensor(0).tensor, TOWARDS_0), x)
    elif to == TRUTH:
        here.like(here.graph.by_sign(here.name, here.tensor(0).tensor, 1.0, 0.0, 1.0), x)
    else:
        raise Unsupported("it casts to what is neither a float of 16, 32 or 64 bits, a whole number nor a truth")
