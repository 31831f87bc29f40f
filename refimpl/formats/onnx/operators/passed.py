"""Operators that give what they get: Identity, Dropout in inference, Cast between floats.

A Cast of whole numbers to the dtype that they have, as PyTorch's exporter writes it behind QuantizeLinear, is one too.
"""

from ..value import FLOATS, Unsupported
from ..walk import OnnxNode

WHOLE = {"uint8": 2, "int8": 3}  # ONNX's numbers of the dtypes of maps
OPERATORS = ("Identity", "Dropout", "Cast")


def convert(here: OnnxNode) -> None:
    """No node of ours."""
    x = here.padded(0)
    if here.op == "Cast" and here.attr("to") not in FLOATS:
        mark = here.walk.marks.get(x.tensor)
        if mark is None or here.attr("to") != WHOLE.get(mark.dtype.name):
            raise Unsupported("it casts to what is no float")
    here.like(x.tensor, x, pad=x.pad)
