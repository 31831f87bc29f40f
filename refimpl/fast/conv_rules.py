"""Dense convolutions on the fast kernels: what follows forward is done on the tile, what precedes backward is read through."""

import numpy as np

from ..lower import Lowering
from ..ops import add, conv2d, frozen_batch_norm
from ..program import Buffer, Call, Launch
from . import conv2d as fast_conv2d
from . import tiles
from .rules import MASKED, RECTIFIERS, arriving, named, nothing

GRADIENTS = (conv2d.grad_w, conv2d.grad_x, conv2d.grad_b)


def depthwise(call: Call) -> bool:
    """One channel a group: the kernels of `fast.depthwise` are for it."""
    return call.passed is not conv2d.grad_b and 1 < call.sizes["C"] == call.sizes["G"] == call.sizes["K"]


def present(*values) -> tuple[Buffer, ...]:
    """The buffers among a launch's arguments."""
    return tuple(v for v in values if isinstance(v, Buffer))


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A convolution, the frozen norm, the sum of two branches, the activation and its mask after it, in one launch."""
    if call.passed is not conv2d.forward or depthwise(call):
        return None
    y, dtype = call.arrays["y"], call.arrays["y"].dtype
    covers = [call]
    scale, shift, residual, mask = nothing(1, dtype), call.arrays.get("b"), nothing(4, dtype), nothing(2, np.uint8)
    norm = lowering.reader(y, frozen_batch_norm.forward) if shift is None else None
    if norm:
        covers.append(norm)
        scale, shift, y = norm.arrays["scale"], norm.arrays["shift"], norm.arrays["y"]
    total = lowering.reader(y, add.forward)
    if total and total.section == "forward":
        other = total.arrays["b"] if total.arrays["a"].root is y.root else total.arrays["a"]
        if other.root is not y.root and lowering.written_before(other, total, besides=covers):
            covers.append(total)
            residual, y = other, total.arrays["y"]
    act, rectifier = 0, lowering.reader(y, *RECTIFIERS)
    if rectifier:
        covers.append(rectifier)
        act, operator = RECTIFIERS[rectifier.passed]
        y = rectifier.arrays["y"]
        pack = lowering.find(y, operator.pack_mask)
        if pack:
            covers.append(pack)
            mask = pack.arrays["mask"]
    x, w = call.arrays["x"], call.arrays["w"]
    cut = tiles.forward_tiles(call.sizes, call.attrs)
    shape = tiles.forward_scratch(call.sizes, call.attrs, cut, lowering.threads)
    scratch = lowering.scratch(call, "scratch", shape, dtype)
    shift = nothing(1, dtype) if shift is None else shift
    map_y = y.reshape(call.arrays["y"].shape)
    args = (map_y, mask, x, w, scale, shift, residual, scratch, tiles.geometry(call.attrs), cut, act)
    reads, writes = present(x, w, scale, shift, residual), present(y, mask)
    return [Launch(named(covers), fast_conv2d.forward, args, reads, writes, tuple(covers), (scratch,))]


def backward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of a convolution, through the rectifier and the frozen norm after it where only they read the result.

    Then what is between is not stored.
    """
    if call.passed in GRADIENTS and not depthwise(call):
        dy = call.arrays["dy"]
        return [gradient(lowering, call, [], dy, nothing(2, np.uint8), nothing(1, dy.dtype))]
    if call.passed in MASKED or call.passed is frozen_batch_norm.grad_x:
        covers, dx, mask, scale = arriving(lowering, call)
        readers = lowering.readers.get(dx.root, [])
        if readers and all(c and c.passed in GRADIENTS and not depthwise(c) and lowering.free(c) for c in readers):
            dy = call.arrays["dy"].reshape(readers[0].arrays["dy"].shape)
            launches = [gradient(lowering, readers[0], covers, dy, mask, scale)]
            return launches + [gradient(lowering, c, [], dy, mask, scale) for c in readers[1:]]
    return None


def gradient(lowering: Lowering, call: Call, before: list[Call], dy: Buffer, mask, scale) -> Launch:
    """The launch of one gradient, which reads dy through mask and scale; `before`: calls that this makes unnecessary."""
    a, z, covers = call.arrays, call.sizes, (*before, call)
    geometry, dtype = tiles.geometry(call.attrs) if call.passed is not conv2d.grad_b else (), dy.dtype
    if call.passed is conv2d.grad_w:
        cut = tiles.grad_w_tiles(z, call.attrs)
        shape = tiles.grad_w_scratch(z, call.attrs, cut, lowering.threads)
        scratch = lowering.scratch(call, "scratch", shape, dtype)
        shape = tiles.grad_w_partials(z, call.attrs, cut)
        partials = lowering.scratch(call, "partials", shape, dtype) if shape[0] else nothing(2, dtype)
        args = (a["dw"], dy, mask, scale, a["x"], scratch, partials, geometry, cut)
        reads, own = present(dy, mask, scale, a["x"]), present(scratch, partials)
        return Launch(named(covers), fast_conv2d.grad_w, args, reads, (a["dw"],), covers, own)
    if call.passed is conv2d.grad_x:
        cut = tiles.grad_x_tiles(z, call.attrs)
        shape = tiles.grad_x_scratch(z, call.attrs, cut, lowering.threads)
        scratch = lowering.scratch(call, "scratch", shape, dtype)
        args = (a["dx"], dy, mask, scale, a["w"], scratch, geometry, cut, False)
        reads = present(dy, mask, scale, a["w"])
        return Launch(named(covers), fast_conv2d.grad_x, args, reads, (a["dx"],), covers, (scratch,))
    partials = lowering.scratch(call, "partials", tiles.grad_b_partials(z), dtype)
    args = (a["db"], dy, mask, scale, partials)
    return Launch(named(covers), fast_conv2d.grad_b, args, present(dy, mask, scale), (a["db"],), covers, (partials,))


RULES = (forward, backward)
