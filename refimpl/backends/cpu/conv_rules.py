"""Dense convolutions and linear layers on the fast kernels.

What follows forward is done on the tile, what precedes backward is read through.
"""

import numpy as np

from ...compiler import grouping
from ...compiler.grouping import Arrival, convolution
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import conv2d
from ..common import absent, activation, named, present, through
from . import conv2d as fast_conv2d
from . import tiles
from .norm_rules import reads_virtual


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A convolution, the frozen norm, the sum of two branches, the activation and its mask after it, in one launch."""
    if call.passed is conv2d.forward and grouping.depthwise(call):
        return None
    chain = grouping.chain(lowering, call)
    if "b" in call.arrays:
        chain = chain.before("norm")  # the kernel adds one shift
    sizes, attrs, arrays = convolution(call)
    x, w, shape, dtype = arrays["x"], arrays["w"], arrays["y"].shape, call.arrays["y"].dtype
    scale, shift, residual, mask = absent(1, dtype), call.arrays.get("b"), absent(4, dtype), absent(2, np.uint8)
    if chain.norm:
        scale, shift = chain.norm.arrays["scale"], chain.norm.arrays["shift"]
    if chain.sum:
        residual = chain.residual.reshape(shape)
    if chain.pack:
        mask = chain.mask
    shift = absent(1, dtype) if shift is None else shift
    cut = tiles.forward_tiles(sizes, attrs)
    scratch = lowering.scratch(call, "scratch", tiles.forward_scratch(sizes, attrs, cut, lowering.threads), dtype)
    geometry, act = tiles.geometry(attrs), activation(chain.rectifier)
    args = (chain.y.reshape(shape), mask, x, w, scale, shift, residual, scratch, geometry, cut, act)
    reads, writes = present(x, w, scale, shift, residual), present(chain.y, mask)
    return [Launch(named(chain.calls), fast_conv2d.forward, args, reads, writes, chain.calls, (scratch,))]


def backward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of a convolution, through the rectifier and the frozen norm after it.

    Where only they read the result, what is between is not stored.
    """
    arrival = grouping.arrival(lowering, call, *grouping.GRADIENTS)
    if not arrival.readers or any(grouping.depthwise(c) or reads_virtual(lowering, c) for c in arrival.readers):
        return None
    first, *others = arrival.readers
    covers = [(*arrival.passed, first), *((c,) for c in others)]
    return [gradient(lowering, arrival, c, covered) for c, covered in zip(arrival.readers, covers, strict=True)]


def gradient(lowering: Lowering, arrival: Arrival, call: Call, covers: tuple[Call, ...]) -> Launch:
    """The launch of one gradient, which reads dy through mask and scale; it makes the other calls unnecessary."""
    sizes, attrs, a = convolution(call)
    dy, (mask, scale) = arrival.dy.reshape(a["dy"].shape), through(arrival)
    dtype, between = dy.dtype, present(mask, scale)
    if call.passed in grouping.GRAD_W:
        cut = tiles.grad_w_tiles(sizes, attrs)
        shape = tiles.grad_w_scratch(sizes, attrs, cut, lowering.threads, bool(between))
        scratch = lowering.scratch(call, "scratch", shape, dtype)
        shape = tiles.grad_w_partials(sizes, attrs, cut)
        partials = lowering.scratch(call, "partials", shape, dtype) if shape[0] else absent(2, dtype)
        args = (a["dw"], dy, mask, scale, a["x"], scratch, partials, tiles.geometry(attrs), cut)
        own = present(scratch, partials)
        return Launch(named(covers), fast_conv2d.grad_w, args, (dy, *between, a["x"]), (a["dw"],), covers, own)
    if call.passed in grouping.GRAD_X:
        cut = tiles.grad_x_tiles(sizes, attrs)
        shape = tiles.grad_x_scratch(sizes, attrs, cut, lowering.threads, bool(between))
        scratch = lowering.scratch(call, "scratch", shape, dtype)
        shape = tiles.grad_x_turned(sizes, attrs)
        turned = lowering.scratch(call, "turned", shape, dtype) if shape[0] else absent(4, dtype)
        args = (a["dx"], dy, mask, scale, a["w"], turned, scratch, tiles.geometry(attrs), cut, False)
        own = present(turned, scratch)
        return Launch(named(covers), fast_conv2d.grad_x, args, (dy, *between, a["w"]), (a["dx"],), covers, own)
    partials = lowering.scratch(call, "partials", tiles.grad_b_partials(sizes), dtype)
    args = (a["db"], dy, mask, scale, partials)
    return Launch(named(covers), fast_conv2d.grad_b, args, (dy, *between), (a["db"],), covers, (partials,))


RULES = {  # rule → the passes of the calls that it begins at
    forward: grouping.FORWARD,
    backward: (*grouping.GRADIENTS, *grouping.PASSED),
}
