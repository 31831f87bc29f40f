"""QuantizeLinear and DequantizeLinear between layers, as quantized exports write them: the range, without the rounding.

A map is limited to what its integers can hold, which also stands for a rectifier that an export left to that. Weights
that are dequantized are constants, computed at once. What its whole numbers stand for is kept beside the clip, for a
net that is to stay one of whole numbers (`onnx.whole`).
"""

import numpy as np

from ....surgery.quantize import MapScale
from ...whole_net import checked_scale, near
from ..value import Mark, Unsupported
from ..walk import OnnxNode

OPERATORS = ("QuantizeLinear", "DequantizeLinear")
SAID = "the model is quantized: it trains in floats, and the rounding of its maps is left out"


def convert(here: OnnxNode) -> None:
    """A clip; no node of what is dequantized."""
    x = here.padded(0)
    here.walk.note(SAID)
    found = mark(here)
    if here.op == "DequantizeLinear":
        made = here.walk.marks.get(x.tensor)
        if made and not (made.scale.zero == found.scale.zero and near(made.scale.value, found.scale.value)):
            raise Unsupported(
                f"it reads whole numbers by scale {found.scale.value:g} and zero point {found.scale.zero}, but they "
                f"were made by {made.scale.value:g} and {made.scale.zero}"
            )
        here.like(x.tensor, x, pad=x.pad)
        return
    ends = np.iinfo(found.dtype)
    low, high = ((end - found.scale.zero) * found.scale.value for end in (ends.min, ends.max))
    tensor = here.graph.clip(here.name, x.tensor, low, high)
    here.walk.marks[tensor] = found
    here.like(tensor, x, pad=x.pad)  # 0 is a whole number of every scale


def mark(here: OnnxNode) -> Mark:
    """Scale, zero point and dtype of the whole numbers that it writes or reads."""
    scale, zero = here.constant(1, "scale"), here.constant(2, "zero point", np.uint8(0))
    if np.size(scale) != 1 or np.size(zero) != 1 or zero.dtype.kind not in "iu" or here.attr("block_size", 0):
        raise Unsupported(
            f"it has {np.size(scale)} scales and {np.size(zero)} zero points of {zero.dtype}: a map has one of each, "
            "of integers"
        )
    try:
        value = checked_scale(scale, "its scale").reshape(-1)[0]
    except ValueError as e:
        raise Unsupported(str(e)) from None
    return Mark(MapScale(float(value), int(zero.reshape(-1)[0])), zero.dtype)
