"""Layers in whole numbers on the GPU: dots of four bytes, on tiles."""

import numpy as np

from ...compiler import grouping
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import quantized_conv2d, quantized_linear
from ..common import absent, present
from . import quantized as on_tiles
from .conv_rules import few, pixels
from .convolution import geometry_of


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A convolution, or the outputs or the sums of a linear layer; those of few channels a group are left alone."""
    sizes, attrs, arrays = grouping.quantized_convolution(call)
    if few(sizes):
        return None
    y, x, w = pixels(arrays["y"]), pixels(arrays["x"]), arrays["w"]
    b, multiplier, shift = (arrays.get(name, absent(1, np.int32)) for name in ("b", "multiplier", "shift"))
    ends = tuple(int(call.attrs.get(name, 0)) for name in ("x_zero", "y_zero", "low", "high", "twice"))
    kernel = on_tiles.FORWARD if w.dtype == np.int8 else on_tiles.WIDE_FORWARD
    args = (y, x, w, b, multiplier, shift, geometry_of(sizes, attrs), ends)
    return [Launch(call.name, kernel, args, present(x, w, b, multiplier, shift), (y,), (call,))]


RULES = {forward: (quantized_conv2d.forward, quantized_linear.forward, quantized_linear.accumulate)}
