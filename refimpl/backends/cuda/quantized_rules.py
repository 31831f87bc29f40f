"""Layers in whole numbers on the GPU, forwards and backwards: dots of four bytes, on tiles.

Those of few channels a group are left alone, and so are gradients of weights where each few pixels have a scale.
"""

import math

import numpy as np

from ...compiler import grouping, whole_products
from ...compiler.ir import Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...methods.quantized import batch_scales
from ...ops import quantized_conv2d, quantized_linear
from ..common import absent, present
from . import quantized as on_tiles
from . import quantized_gradients as gradients
from .conv_rules import few, pixels, summed
from .convolution import geometry_of, slices_of
from .tile import up

SHORTEST = 4  # pixels that share a scale, below which words are mostly zeros


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A convolution, or the outputs or the sums of a linear layer."""
    sizes, attrs, arrays = grouping.quantized_convolution(call)
    if few(sizes):
        return None
    y, x, w = pixels(arrays["y"]), pixels(arrays["x"]), arrays["w"]
    b, multiplier, shift = (arrays.get(name, absent(1, np.int32)) for name in ("b", "multiplier", "shift"))
    ends = tuple(int(call.attrs.get(name, 0)) for name in ("x_zero", "y_zero", "low", "high", "twice"))
    kernel = on_tiles.FORWARD if w.dtype == np.int8 else on_tiles.WIDE_FORWARD
    args = (y, x, w, b, multiplier, shift, geometry_of(sizes, attrs), ends)
    return [Launch(call.name, kernel, args, present(x, w, b, multiplier, shift), (y,), (call,))]


def forward_in_training(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The outputs in floats, of numbers that have one scale, or the sums of those that share an exponent."""
    sizes, attrs, a = whole_products.convolution(call)
    if few(sizes):
        return None
    y, operands, none = pixels(a["y"]), (pixels(a["x"]), a["w"]), absent(1, np.float32)
    if a["y"].dtype == np.int32:
        kernel, more = on_tiles.EXPONENT_FORWARD, (a.get("b", absent(1, np.int16)), a["x_exponent"], none)
    else:
        kernel, more = on_tiles.SCALED_FORWARD, (a.get("b", absent(1, y.dtype)), a["x_scale"], a["w_scale"])
    args = (y, *operands, *more, geometry_of(sizes, attrs), (0, 0, 0, 0, 0))
    return [Launch(call.name, kernel, args, present(*operands, *more), (y,), (call,))]


def gradient_x(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of the input, scaled or in sums."""
    sizes, attrs, a = whole_products.convolution(call)
    dx, dy, w = pixels(a["dx"]), pixels(a["dy"]), a["w"]
    if few(sizes) or dy.dtype != np.int8 or w.dtype != np.int8:
        return None
    kernel = gradients.SUMS_GRAD_X if dx.dtype == np.int32 else gradients.GRAD_X
    operands = dy, w, *scales(a, "dy_scale", "w_scale")
    args = (dx, *operands, geometry_of(sizes, attrs))
    return [Launch(call.name, kernel, args, present(*operands), (dx,), (call,))]


def gradient_w(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of the weights, which adds its slices where it has several."""
    sizes, attrs, a = whole_products.convolution(call)
    dw, dy, each = a["dw"], pixels(a["dy"]), sizes["P"] * sizes["Q"]
    whole = dw.dtype == np.int32
    if whole or lowering.writer(a["dy_scale"]).passed is batch_scales:
        each = 0  # all pixels have one scale, or none
    if few(sizes) or 0 < each < SHORTEST or each > gradients.LONGEST:
        return None
    number, length = slices_of(sizes, each, gradients.LONGEST)
    kernel = gradients.GRAD_W if dy.dtype == np.int8 else gradients.WIDE_GRAD_W
    kernel = gradients.SUMS_GRAD_W if whole else kernel
    operands = dy, pixels(a["x"]), *scales(a, "dy_scale", "x_scale")
    partial = Buffer(f"{call.node}.slices", (number, *dw.shape), dw.dtype, "arena")
    made = Prefix(partial, lambda n: up(n * dy.batched, length))
    args = (made, *operands, geometry_of(sizes, attrs), length, each or length, int(attrs.get("x_zero", 0)))
    product = Launch(call.name, kernel, args, present(*operands), (partial,), (call,))
    return summed(call, dw, product, made)


def scales(arrays: dict, *names: str) -> tuple[Buffer | np.ndarray, ...]:
    """Scales by their names, flat, empty where there are none."""
    found = (arrays.get(name) for name in names)
    return tuple(absent(1, np.float32) if b is None else b.reshape((math.prod(b.shape),)) for b in found)


RULES = {  # rule → the passes of the calls that it begins at
    forward: (quantized_conv2d.forward, quantized_linear.forward, quantized_linear.accumulate),
    forward_in_training: whole_products.FORWARD,
    gradient_x: whole_products.GRAD_X,
    gradient_w: whole_products.GRAD_W,
}
