"""Which groups of calls the fast kernels do together. Each rule returns launches, or None where it does not apply."""

from typing import NamedTuple

import numpy as np

from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...methods import gradient_filter as gf
from ...ops import add, copy, frozen_batch_norm, relu, relu6
from . import add as fast_add
from . import copy as fast_copy
from . import gradient_filter as fast_gf
from . import relu as fast_relu
from .activation import RELU, RELU6

RECTIFIERS = {relu.forward: (RELU, relu), relu6.forward: (RELU6, relu6)}  # pass → activation, operator
MASKED = (relu.grad_x, relu6.grad_x)


def absent(dims: int, dtype) -> np.ndarray:
    """The empty array that stands for an argument that is not given."""
    return np.empty((0,) * dims, dtype)


def flat(buffer: Buffer) -> Buffer:
    """A buffer as (N, elements of a sample)."""
    return buffer.reshape((buffer.shape[0], int(np.prod(buffer.shape[1:]))))


def named(calls: list[Call]) -> str:
    """A launch's name from the calls that it covers: `conv1 conv2d.forward + bn1 frozen_batch_norm.forward`."""
    return " + ".join(c.name for c in calls)


def rectify(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A rectifier and its mask in one sweep, with the sum of two branches before it where nobody else reads the sum."""
    covers, inputs = [call], []
    if call.passed is add.forward:
        rectifier = lowering.reader(call.arrays["y"], *RECTIFIERS)
        if rectifier is None:
            return None
        covers.append(rectifier)
        inputs = [call.arrays["a"], call.arrays["b"]]
    else:
        rectifier, inputs = call, [call.arrays["x"]]
    act, operator = RECTIFIERS[rectifier.passed]
    y = rectifier.arrays["y"]
    pack = lowering.find(y, operator.pack_mask)
    writes = [y]
    if pack:
        covers.append(pack)
        writes.append(pack.arrays["mask"])
    a = flat(inputs[0])
    b = flat(inputs[1]) if len(inputs) > 1 else absent(2, y.dtype)
    mask = pack.arrays["mask"] if pack else absent(2, np.uint8)
    args = (flat(y), mask, a, b, act)
    return [Launch(named(covers), fast_relu.forward, args, tuple(inputs), tuple(writes), tuple(covers))]


class Passage(NamedTuple):
    """What a gradient passes on its way to the operator before: the calls, their result, its mask and its scale."""

    covers: list[Call]
    dx: Buffer
    mask: Buffer | np.ndarray
    scale: Buffer | np.ndarray


def arriving(lowering: Lowering, call: Call) -> Passage:
    """What the gradient passes on its way from `call`, a rectifier's or a frozen norm's."""
    covers, dx = [], call.arrays["dx"]
    mask, scale = absent(2, np.uint8), absent(1, dx.dtype)
    if call.passed in MASKED:
        covers.append(call)
        mask = call.arrays["mask"]
        call = lowering.reader(dx, frozen_batch_norm.grad_x)
    if call is not None and call.passed is frozen_batch_norm.grad_x:
        covers.append(call)
        dx, scale = call.arrays["dx"], call.arrays["scale"]
    return Passage(covers, dx, mask, scale)


def pool_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The patch means of dy, through a rectifier's mask and a frozen norm: neither of their gradients is stored."""
    if call.passed is gf.pool_dy:
        covers, mask, scale, pool, dy = [], absent(2, np.uint8), absent(1, call.arrays["dy"].dtype), call, None
    else:
        covers, dx, mask, scale = arriving(lowering, call)
        pool, dy = lowering.reader(dx, gf.pool_dy), call.arrays["dy"]
        if pool is None:
            return None
    dy = (dy or pool.arrays["dy"]).reshape(pool.arrays["dy"].shape)
    mean = pool.arrays["dy_mean"]
    args = (mean, dy, mask, scale, pool.attrs["patch"], pool.attrs["align"])
    reads = tuple(b for b in (dy, mask, scale) if isinstance(b, Buffer))
    covers = (*covers, pool)
    return [Launch(named(covers), fast_gf.pool_dy, args, reads, (mean,), covers)]


def pool_input(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The patch sums of x."""
    a = call.arrays
    args = (a["x_sum"], a["x"], *(call.attrs[name] for name in ("patch", "stride", "align")))
    return [Launch(call.name, fast_gf.pool_x, args, (a["x"],), (a["x_sum"],), (call,))]


def sum_kernel(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The spatial sum of a kernel."""
    a = call.arrays
    return [Launch(call.name, fast_gf.sum_w, (a["w_sum"], a["w"]), (a["w"],), (a["w_sum"],), (call,))]


def filtered_grad_x(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Patch gradients and their expansion: a tile of them is written to dx while it is in cache."""
    expand = lowering.reader(call.arrays["dx_patch"], gf.expand)
    if expand is None:
        return None
    dx, mean = expand.arrays["dx"], call.arrays["dy_mean"]
    own = working(lowering, call, dx.dtype, "tiles", "turned", "panels")
    where = (expand.attrs["patch"], expand.attrs["stride"])
    if call.passed is gf.patch_grad:
        function, w = fast_gf.grad_x, call.arrays["w_sum"]
    else:
        function, w, own = fast_gf.grad_x_dilated, call.arrays["w"], own[:1]
        where = (*where, call.attrs["dilation"])
    args = (dx, *own, mean, w, *where, expand.attrs["align"])
    covers = (call, expand)
    return [Launch(named(covers), function, args, (mean, w), (dx,), covers, own)]


def working(lowering: Lowering, call: Call, dtype, *names: str) -> tuple[Buffer, ...]:
    """Working arrays of a filtered gradient."""
    shapes = fast_gf.scratch(call.sizes, lowering.threads)
    return tuple(lowering.scratch(call, name, shapes[name], dtype) for name in names)


def filtered_grad_w(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The one weight gradient of each window and its expansion."""
    expand = lowering.reader(call.arrays["dw_patch"], gf.expand_w)
    if expand is None:
        return None
    dw, mean, x_sum = expand.arrays["dw"], call.arrays["dy_mean"], call.arrays["x_sum"]
    own = working(lowering, call, dw.dtype, "dw_partial", "panels")
    covers = (call, expand)
    return [Launch(named(covers), fast_gf.grad_w, (dw, *own, mean, x_sum), (mean, x_sum), (dw,), covers, own)]


def masked_scale(lowering: Lowering, call: Call) -> list[Launch] | None:
    """dy through a rectifier's mask, a frozen batch norm or both, in place where nobody needs dy any more."""
    dy = call.arrays["dy"]
    covers, dx, mask, scale = arriving(lowering, call)
    lowering.overlay(dx, dy, call)
    reads = tuple(b for b in (dy, mask, scale) if isinstance(b, Buffer))
    return [Launch(named(covers), fast_relu.grad_x, (flat(dx), flat(dy), mask, scale), reads, (dx,), tuple(covers))]


def sum_of_two(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The sum of two branches or of two gradients, where nothing follows that does it on its way."""
    y, a, b = (call.arrays[name] for name in "yab")
    return [Launch(call.name, fast_add.forward, (y, a, b), (a, b), (y,), (call,))]


def copied(lowering: Lowering, call: Call) -> list[Launch]:
    """A copy in memory of its own."""
    y, x = call.arrays["y"], call.arrays["x"]
    return [Launch(call.name, fast_copy.forward, (y, x), (x,), (y,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    rectify: (add.forward, *RECTIFIERS),
    pool_gradient: (gf.pool_dy, *MASKED, frozen_batch_norm.grad_x),
    pool_input: (gf.pool_x,),
    sum_kernel: (gf.sum_w,),
    filtered_grad_x: (gf.patch_grad, gf.patch_grad_dilated),
    filtered_grad_w: (gf.patch_grad_w,),
    masked_scale: (*MASKED, frozen_batch_norm.grad_x),
    sum_of_two: (add.forward,),
    copied: (copy.forward,),
}
