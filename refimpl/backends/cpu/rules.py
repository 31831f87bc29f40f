"""How the fast kernels do groups of calls. Each rule returns launches, or None where it does not apply."""

from collections.abc import Iterable

import numpy as np

from ...compiler import grouping
from ...compiler.grouping import Arrival
from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...methods import gradient_filter as gf
from ...ops import add, copy, relu, relu6
from . import add as fast_add
from . import copy as fast_copy
from . import gradient_filter as fast_gf
from . import relu as fast_relu
from .activation import NONE, RELU, RELU6

ACTIVATIONS = {relu.forward: RELU, relu6.forward: RELU6}


def activation(rectifier: Call | None) -> int:
    """The number by which kernels are told an activation."""
    return ACTIVATIONS[rectifier.passed] if rectifier else NONE


def absent(dims: int, dtype) -> np.ndarray:
    """The empty array that stands for an argument that is not given."""
    return np.empty((0,) * dims, dtype)


def flat(buffer: Buffer) -> Buffer:
    """A buffer as (N, elements of a sample)."""
    return buffer.reshape((buffer.shape[0], int(np.prod(buffer.shape[1:]))))


def present(*values) -> tuple[Buffer, ...]:
    """The buffers among a launch's arguments."""
    return tuple(v for v in values if isinstance(v, Buffer))


def named(calls: Iterable[Call]) -> str:
    """A launch's name from the calls that it covers: `conv1 conv2d.forward + bn1 frozen_batch_norm.forward`."""
    return " + ".join(c.name for c in calls)


def rectify(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A rectifier and its mask in one sweep, with the sum of two branches before it where nobody else reads the sum."""
    chain = grouping.chain(lowering, call).before("norm").before("sum")
    if chain.rectifier is None:
        return None
    inputs = tuple(call.reads)
    y, mask = chain.y, chain.mask
    a = flat(inputs[0])
    b = flat(inputs[1]) if len(inputs) > 1 else absent(2, y.dtype)
    args = (flat(y), absent(2, np.uint8) if mask is None else mask, a, b, activation(chain.rectifier))
    return [Launch(named(chain.calls), fast_relu.forward, args, inputs, present(y, mask), chain.calls)]


def through(arrival: Arrival) -> tuple[Buffer | np.ndarray, Buffer | np.ndarray]:
    """Mask and scale of what a gradient passes on its way, as arguments."""
    mask, scale = arrival.mask, arrival.scale
    return (
        absent(2, np.uint8) if mask is None else mask,
        absent(1, arrival.dy.dtype) if scale is None else scale,
    )


def pool_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The patch means of dy, through a rectifier's mask and a frozen norm: neither of their gradients is stored."""
    arrival = grouping.arrival(lowering, call, gf.pool_dy)
    if len(arrival.readers) != 1:
        return None
    pool, mean = arrival.readers[0], arrival.readers[0].arrays["dy_mean"]
    dy, (mask, scale) = arrival.dy.reshape(pool.arrays["dy"].shape), through(arrival)
    args = (mean, dy, mask, scale, pool.attrs["patch"], pool.attrs["align"])
    covers = (*arrival.passed, pool)
    return [Launch(named(covers), fast_gf.pool_dy, args, present(dy, mask, scale), (mean,), covers)]


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
    expand = grouping.expansion(lowering, call)
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
    expand = grouping.expansion(lowering, call)
    if expand is None:
        return None
    dw, mean, x_sum = expand.arrays["dw"], call.arrays["dy_mean"], call.arrays["x_sum"]
    own = working(lowering, call, dw.dtype, "dw_partial", "panels")
    covers = (call, expand)
    return [Launch(named(covers), fast_gf.grad_w, (dw, *own, mean, x_sum), (mean, x_sum), (dw,), covers, own)]


def masked_scale(lowering: Lowering, call: Call) -> list[Launch] | None:
    """dy through a rectifier's mask, a frozen batch norm or both, in place where nobody needs dy any more."""
    arrival = grouping.arrival(lowering, call)
    dy, dx, (mask, scale) = arrival.dy, arrival.dx, through(arrival)
    lowering.overlay(dx, dy, call)
    args, reads = (flat(dx), flat(dy), mask, scale), present(dy, mask, scale)
    return [Launch(named(arrival.passed), fast_relu.grad_x, args, reads, (dx,), arrival.passed)]


def sum_of_two(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The sum of two branches or of two gradients, where nothing follows that does it on its way."""
    y, a, b = (call.arrays[name] for name in "yab")
    return [Launch(call.name, fast_add.forward, (y, a, b), (a, b), (y,), (call,))]


def copied(lowering: Lowering, call: Call) -> list[Launch]:
    """A copy in memory of its own."""
    y, x = call.arrays["y"], call.arrays["x"]
    return [Launch(call.name, fast_copy.forward, (y, x), (x,), (y,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    rectify: (add.forward, *grouping.RECTIFIERS),
    pool_gradient: (gf.pool_dy, *grouping.PASSED),
    pool_input: (gf.pool_x,),
    sum_kernel: (gf.sum_w,),
    filtered_grad_x: grouping.FILTERED_GRAD_X,
    filtered_grad_w: grouping.FILTERED_GRAD_W,
    masked_scale: grouping.PASSED,
    sum_of_two: (add.forward,),
    copied: (copy.forward,),
}
