"""Layers in whole numbers on the tuned kernels."""

import numpy as np

from ...compiler import grouping
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import (
    dequantize,
    quantize,
    quantized_add,
    quantized_conv2d,
    quantized_global_avg_pool,
    quantized_linear,
    quantized_max_pool,
)
from ..common import absent, flat, present
from . import dequantize as fast_dequantize
from . import max_pool as fast_max_pool
from . import quantize as fast_quantize
from . import quantized_add as fast_add
from . import quantized_conv2d as fast_quantized
from . import quantized_gradients as fast_gradients
from . import quantized_pools as fast_pools
from . import quantized_taps as fast_taps
from . import tiles


def forward(lowering: Lowering, call: Call) -> list[Launch]:
    """A convolution or a linear layer."""
    sizes, attrs, arrays = grouping.quantized_convolution(call)
    x, w, out = arrays["x"], arrays["w"], arrays["y"]
    b, multiplier, shift = (arrays.get(name, absent(1, np.int32)) for name in ("b", "multiplier", "shift"))
    numbers = tuple(call.attrs.get(name, 0) for name in ("x_zero", "y_zero", "low", "high", "twice"))
    reads = present(x, w, b, multiplier, shift)
    if 1 < sizes["G"] == sizes["C"] == sizes["K"]:
        geometry = tiles.geometry(attrs)
        args = (out, x, w, b, multiplier, shift, geometry, *numbers)
        kernel = fast_taps.forward if fast_taps.fits(w, geometry[1], geometry[3]) else fast_quantized.depthwise
        return [Launch(call.name, kernel, args, reads, (out,), (call,))]
    needed = fast_quantized.scratch(sizes, attrs, w.dtype, lowering.threads)
    own = {n: lowering.scratch(call, n, shape, dtype) for n, (shape, dtype) in needed.items() if np.prod(shape)}
    cut = fast_quantized.cut(sizes, w.dtype)
    source = own.get("tile") or x.reshape((int(np.prod(x.shape[:3])), x.shape[3]))
    args = (
        out, x, w, b, multiplier, shift, own["panels"], own["starts"], source, own["totals"], tiles.geometry(attrs),
        cut, "tile" not in own, sizes["N"] * sizes["P"] * sizes["Q"] <= cut[0], *numbers,
    )  # fmt: skip
    return [Launch(call.name, fast_quantized.dense, args, reads, (out,), (call,), tuple(own.values()))]


def total(lowering: Lowering, call: Call) -> list[Launch]:
    """The sum of two branches."""
    y, a, b = (call.arrays[name] for name in "yab")
    zeros = tuple(call.attrs[f"{name}_zero"] for name in "aby")
    multipliers = tuple(call.attrs[f"{name}_multiplier"] for name in "aby")
    shifts = tuple(call.attrs[f"{name}_shift"] for name in "aby")
    numbers = tuple(call.attrs[name] for name in ("low", "high", "twice"))
    args = (flat(y), flat(a), flat(b), zeros, multipliers, shifts, *numbers)
    return [Launch(call.name, fast_add.forward, args, (a, b), (y,), (call,))]


def pooled(lowering: Lowering, call: Call) -> list[Launch]:
    """The maximum of each window, or the mean of each map."""
    y, x, attrs = call.arrays["y"], call.arrays["x"], call.attrs
    if call.passed is quantized_max_pool.forward:
        args = (y, x, fast_max_pool.geometry(attrs), attrs["low"], attrs["high"])
        return [Launch(call.name, fast_pools.maximum, args, (x,), (y,), (call,))]
    numbers = (attrs[name] for name in ("x_zero", "multiplier", "shift", "y_zero", "low", "high", "twice"))
    return [Launch(call.name, fast_pools.mean, (y, x, *numbers), (x,), (y,), (call,))]


def whole(lowering: Lowering, call: Call) -> list[Launch]:
    """Real numbers made whole."""
    y, x, scale = (call.arrays[name] for name in ("y", "x", "scale"))
    args = (flat(y), flat(x), scale, call.attrs["zero"])
    return [Launch(call.name, fast_quantize.forward, args, (x, scale), (y,), (call,))]


def real(lowering: Lowering, call: Call) -> list[Launch]:
    """Whole numbers made real."""
    y, x, scale = (call.arrays[name] for name in ("y", "x", "scale"))
    rows = (int(np.prod(x.shape[:-1])), x.shape[-1])
    args = (y.reshape(rows), x.reshape(rows), scale, call.attrs["zero"])
    return [Launch(call.name, fast_dequantize.forward, args, (x, scale), (y,), (call,))]


def gradient_x(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of the input of a 1×1 or a depthwise convolution, in float32."""
    dx, error, w, scale = (call.arrays[name] for name in ("dx", "error", "w", "error_scale"))
    sizes, attrs = call.sizes, call.attrs
    if dx.dtype != np.float32 or w.dtype != np.int8:
        return None
    reads, args = (error, w, scale), (dx, error, w, scale)
    if sizes["G"] == 1 and tiles.in_place(sizes, attrs):
        return [Launch(call.name, fast_gradients.pointwise, args, reads, (dx,), (call,))]
    if 1 < sizes["G"] == sizes["C"] == sizes["K"] and sizes["R"] * sizes["S"] <= fast_gradients.EXACT:
        args = (*args, tiles.geometry(attrs))
        return [Launch(call.name, fast_gradients.depthwise, args, reads, (dx,), (call,))]
    return None


def rounded(lowering: Lowering, call: Call) -> list[Launch]:
    """Errors of a convolution."""
    second = call.passed is quantized_conv2d.round_w_error
    prefix = "w_" if second else ""
    names = ("dy", "mask", f"{prefix}slope", f"{prefix}error_scale", "step", "seed")
    error, reads = call.arrays[f"{prefix}error"], tuple(call.arrays[name] for name in names)
    args = (error, *reads, call.attrs["stream"], second)
    return [Launch(call.name, fast_gradients.rounded, args, reads, (error,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    forward: (quantized_conv2d.forward, quantized_linear.forward, quantized_linear.accumulate),
    total: (quantized_add.forward,),
    pooled: (quantized_max_pool.forward, quantized_global_avg_pool.forward),
    whole: (quantize.forward,),
    real: (dequantize.forward,),
    gradient_x: (quantized_conv2d.grad_x,),
    rounded: (quantized_conv2d.round_error, quantized_conv2d.round_w_error),
}
