"""Dense convolutions and linear layers on the fast kernels.

What follows forward is done on the tile, what precedes backward is read through.
"""

import numpy as np

from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...ops import add, conv2d, frozen_batch_norm, linear
from . import conv2d as fast_conv2d
from . import tiles
from .activation import NONE
from .norm_rules import norms
from .rules import MASKED, RECTIFIERS, absent, arriving, named

FORWARD = (conv2d.forward, linear.forward)
GRAD_X, GRAD_W = (conv2d.grad_x, linear.grad_x), (conv2d.grad_w, linear.grad_w)
GRAD_B = (conv2d.grad_b, linear.grad_b, frozen_batch_norm.grad_beta)  # a norm's beta is a bias of its map
GRADIENTS = (*GRAD_X, *GRAD_W, *GRAD_B)


def depthwise(call: Call) -> bool:
    """One channel a group: the kernels of `depthwise` are for it."""
    sizes = call.sizes
    return call.passed not in GRAD_B and 1 < sizes.get("G", 1) == sizes["C"] == sizes["K"]


def convolution(call: Call) -> tuple[dict, dict, dict]:
    """Sizes, attributes and buffers of a convolution; a linear layer is a 1×1 one, the rows of a sample its pixels."""
    if call.passed.operator == "conv2d":
        return dict(call.sizes), dict(call.attrs), dict(call.arrays)
    if call.passed is frozen_batch_norm.grad_beta:
        return {**call.sizes, "K": call.sizes["C"]}, {}, {"dy": call.arrays["dy"], "db": call.arrays["dbeta"]}
    row = next(b for b in call.arrays.values() if b.batched)
    pixels = row.batched * call.sizes["N"] // row.shape[0]
    sizes = {"C": call.sizes.get("D"), **call.sizes, **dict.fromkeys("HRSPG", 1), **dict.fromkeys("WQ", pixels)}
    sizes["N"] //= pixels
    attrs = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}
    arrays = {}
    for name, b in call.arrays.items():
        if name in ("w", "dw"):
            b = b.reshape((1, 1, *b.shape))
        arrays[name] = as_map(b)
    return sizes, attrs, arrays


def as_map(buffer: Buffer) -> Buffer:
    """The rows (N, K) of a linear layer as maps (samples, 1, rows of a sample, K); others stay as they are."""
    if len(buffer.shape) != 2:
        return buffer
    pixels = max(1, buffer.batched)
    return buffer.reshape((buffer.shape[0] // pixels, 1, pixels, buffer.shape[1]))


def present(*values) -> tuple[Buffer, ...]:
    """The buffers among a launch's arguments."""
    return tuple(v for v in values if isinstance(v, Buffer))


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A convolution, the frozen norm, the sum of two branches, the activation and its mask after it, in one launch."""
    if call.passed is conv2d.forward and depthwise(call):
        return None
    sizes, attrs, arrays = convolution(call)
    y, dtype = call.arrays["y"], call.arrays["y"].dtype
    covers = [call]
    scale, shift, residual, mask = absent(1, dtype), call.arrays.get("b"), absent(4, dtype), absent(2, np.uint8)
    norm = lowering.reader(y, frozen_batch_norm.forward) if shift is None else None
    if norm:
        covers.append(norm)
        scale, shift, y = norm.arrays["scale"], norm.arrays["shift"], norm.arrays["y"]
    total = lowering.reader(y, add.forward)
    if total and total.phase == "forward" and total not in norms(lowering).by_call:  # a norm's launch does that sum
        other = total.arrays["b"] if total.arrays["a"].root is y.root else total.arrays["a"]
        if other.root is not y.root and lowering.written_before(other, total, besides=covers):
            covers.append(total)
            residual, y = other, total.arrays["y"]
    act, rectifier = NONE, lowering.reader(y, *RECTIFIERS)
    if rectifier:
        covers.append(rectifier)
        act, operator = RECTIFIERS[rectifier.passed]
        y = rectifier.arrays["y"]
        pack = lowering.find(y, operator.pack_mask)
        if pack:
            covers.append(pack)
            mask = pack.arrays["mask"]
    x, w = arrays["x"], arrays["w"]
    cut = tiles.forward_tiles(sizes, attrs)
    shape = tiles.forward_scratch(sizes, attrs, cut, lowering.threads)
    scratch = lowering.scratch(call, "scratch", shape, dtype)
    shift = absent(1, dtype) if shift is None else shift
    if isinstance(residual, Buffer):
        residual = residual.reshape(arrays["y"].shape)
    args = (y.reshape(arrays["y"].shape), mask, x, w, scale, shift, residual, scratch, tiles.geometry(attrs), cut, act)
    reads, writes = present(x, w, scale, shift, residual), present(y, mask)
    return [Launch(named(covers), fast_conv2d.forward, args, reads, writes, tuple(covers), (scratch,))]


def backward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of a convolution, through the rectifier and the frozen norm after it.

    Where only they read the result, what is between is not stored.
    """
    if call.passed in GRADIENTS:
        if depthwise(call):
            return None
        dy = as_map(call.arrays["dy"])
        return [gradient(lowering, call, [], dy, absent(2, np.uint8), absent(1, dy.dtype))]
    covers, dx, mask, scale = arriving(lowering, call)
    readers = lowering.readers(dx)
    if readers and all(
        c and c.passed in GRADIENTS and not depthwise(c) and lowering.free(c) and c.when == call.when for c in readers
    ):
        dy = call.arrays["dy"].reshape(as_map(readers[0].arrays["dy"]).shape)
        launches = [gradient(lowering, readers[0], covers, dy, mask, scale)]
        return launches + [gradient(lowering, c, [], dy, mask, scale) for c in readers[1:]]
    return None


def gradient(lowering: Lowering, call: Call, before: list[Call], dy: Buffer, mask, scale) -> Launch:
    """The launch of one gradient, which reads dy through mask and scale; `before`: calls that it makes unnecessary."""
    sizes, attrs, a = convolution(call)
    covers, dtype = (*before, call), dy.dtype
    through = present(mask, scale)
    if call.passed in GRAD_W:
        cut = tiles.grad_w_tiles(sizes, attrs)
        shape = tiles.grad_w_scratch(sizes, attrs, cut, lowering.threads, bool(through))
        scratch = lowering.scratch(call, "scratch", shape, dtype)
        shape = tiles.grad_w_partials(sizes, attrs, cut)
        partials = lowering.scratch(call, "partials", shape, dtype) if shape[0] else absent(2, dtype)
        args = (a["dw"], dy, mask, scale, a["x"], scratch, partials, tiles.geometry(attrs), cut)
        own = present(scratch, partials)
        return Launch(named(covers), fast_conv2d.grad_w, args, (dy, *through, a["x"]), (a["dw"],), covers, own)
    if call.passed in GRAD_X:
        cut = tiles.grad_x_tiles(sizes, attrs)
        shape = tiles.grad_x_scratch(sizes, attrs, cut, lowering.threads, bool(through))
        scratch = lowering.scratch(call, "scratch", shape, dtype)
        shape = tiles.grad_x_turned(sizes, attrs)
        turned = lowering.scratch(call, "turned", shape, dtype) if shape[0] else absent(4, dtype)
        args = (a["dx"], dy, mask, scale, a["w"], turned, scratch, tiles.geometry(attrs), cut, False)
        own = present(turned, scratch)
        return Launch(named(covers), fast_conv2d.grad_x, args, (dy, *through, a["w"]), (a["dx"],), covers, own)
    partials = lowering.scratch(call, "partials", tiles.grad_b_partials(sizes), dtype)
    args = (a["db"], dy, mask, scale, partials)
    return Launch(named(covers), fast_conv2d.grad_b, args, (dy, *through), (a["db"],), covers, (partials,))


RULES = {  # rule → the passes of the calls that it begins at
    forward: FORWARD,
    backward: (*GRADIENTS, *MASKED, frozen_batch_norm.grad_x),
}
