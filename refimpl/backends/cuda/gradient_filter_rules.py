"""Filtered gradients on the GPU: means through what dy passes, products on tiles, and their expansion with them.

Of few channels a group tiles would be zeros: there the calls are left to their reference kernels.
"""

import math

import numpy as np

from ...compiler import grouping
from ...compiler.ir import AtBatch, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...methods import gradient_filter as gf
from ..common import named, present, through
from . import gradient_filter_patches as patches
from .conv_rules import EVERY, few, in_slices, pixels

PLAIN = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}


def pool_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The patch means of dy, through a rectifier's mask and a frozen norm: neither of their gradients is stored."""
    arrival = grouping.arrival(lowering, call, gf.pool_dy)
    if len(arrival.readers) != 1 or not arrival.passed:
        return None
    pool, mean = arrival.readers[0], arrival.readers[0].arrays["dy_mean"]
    dy, (mask, scale) = arrival.dy.reshape(pool.arrays["dy"].shape), through(arrival)
    items = AtBatch(lambda n: n * mean.batched * int(np.prod(mean.shape[1:])))
    args = (items, mean, dy, mask, scale, pool.attrs["patch"], pool.attrs["align"])
    covers = (*arrival.passed, pool)
    return [Launch(named(covers), patches.POOL, args, present(dy, mask, scale), (mean,), covers)]


def grad_x(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of each patch of x, written to its pixels; left alone where some pixel lies in no patch."""
    expand = grouping.expansion(lowering, call)
    if few(call.sizes) or expand is None:
        return None
    dx, w, z, align = expand.arrays["dx"], call.arrays["w_sum"], call.sizes, expand.attrs["align"]
    maps, grid = dx.shape[1:3], (z["U"], z["V"])
    sides = [r * s for r, s in zip(expand.attrs["patch"], expand.attrs["stride"], strict=True)]
    if any(sum(gf.patch_rows(*axis, align)) < axis[0] for axis in zip(maps, grid, sides, strict=True)):
        return None
    before = [gf.rows_before(*axis, align) for axis in zip(maps, grid, sides, strict=True)]
    mean, covers = pixels(call.arrays["dy_mean"]), (call, expand)
    args = (pixels(dx), mean, w, (*maps, *grid, z["G"]), (*sides, *before))
    return [Launch(named(covers), patches.GRAD_X, args, (mean, w), (args[0],), covers)]


def grad_w(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The one gradient of each window of weights in slices, then their sum, written to every tap."""
    expand = grouping.expansion(lowering, call)
    if few(call.sizes) or expand is None:
        return None
    a, z, dw = call.arrays, call.sizes, expand.arrays["dw"]
    mean = pixels(a["dy_mean"]), np.empty((0, 0), np.uint8), np.empty(0, dw.dtype), EVERY
    one = a["dw_patch"].reshape((1, 1, *a["dw_patch"].shape))
    sizes = {**z, "H": z["U"], "W": z["V"], "P": z["U"], "Q": z["V"], "R": 1, "S": 1}  # a convolution of one tap
    product, partial = in_slices((call,), call, one, mean, a["x_sum"], sizes, PLAIN)
    elements, taps = math.prod(one.shape), math.prod(dw.shape[:2])
    flat = Prefix(partial.buffer.reshape((partial.buffer.shape[0], elements)), partial.length)
    args = (elements, dw.reshape((taps, elements)), flat)
    return [product, Launch(expand.name, patches.TO_TAPS, args, (partial.buffer,), (dw,), (expand,))]


RULES = {  # rule → the passes of the calls that it begins at
    pool_gradient: (gf.pool_dy, *grouping.PASSED),
    grad_x: (gf.patch_grad,),
    grad_w: (gf.patch_grad_w,),
}
