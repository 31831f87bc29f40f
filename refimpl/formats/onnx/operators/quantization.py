"""QuantizeLinear and DequantizeLinear between layers, as quantized exports write them: the range, without the rounding.

A map is limited to what its integers can hold, which also stands for a rectifier that an export left to that. Weights
that are dequantized are constants, computed at once.
"""

import numpy as np

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("QuantizeLinear", "DequantizeLinear")
SAID = "the model is quantized: it trains in floats, and the rounding of its maps is left out"


def convert(here: OnnxNode) -> None:
    """A clip; no node of what is dequantized."""
    x = here.tensor(0)
    if SAID not in here.walk.notes:
        here.walk.notes.append(SAID)
    if here.op == "DequantizeLinear":
        here.like(x.tensor, x)
        return
    scale, zero = here.constant(1, "scale"), here.constant(2, "zero point", np.uint8(0))
    if np.size(scale) != 1 or zero.dtype.kind not in "iu" or here.attr("block_size", 0):
        raise Unsupported("it has a scale for each channel, or no integers: a scale a map is read")
    ends, at = np.iinfo(zero.dtype), int(np.reshape(zero, -1)[0])
    low, high = (float((end - at) * np.reshape(scale, -1)[0]) for end in (ends.min, ends.max))
    here.like(here.graph.clip(here.name, x.tensor, low, high), x)
