"""How the fast kernels filter gradients."""

from ...compiler import grouping
from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...methods import gradient_filter as gf
from ..common import named, present, through
from . import gradient_filter as fast_gf


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


RULES = {  # rule → the passes of the calls that it begins at
    pool_gradient: (gf.pool_dy, *grouping.PASSED),
    pool_input: (gf.pool_x,),
    sum_kernel: (gf.sum_w,),
    filtered_grad_x: (gf.patch_grad, gf.patch_grad_dilated),
    filtered_grad_w: (gf.patch_grad_w,),
}
