"""Operators that make each element of one on the fast kernels."""

import numpy as np

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import affine, gelu, hard_sigmoid, hard_swish, sigmoid, silu
from ..common import absent, flat, named, present
from . import elementwise as fast
from . import hard_sigmoid as fast_hard_sigmoid

KERNELS = {
    sigmoid.forward: fast.sigmoid, sigmoid.grad_x: fast.sigmoid_grad_x,
    silu.forward: fast.silu, silu.grad_x: fast.silu_grad_x,
    hard_swish.forward: fast.hard_swish, hard_swish.grad_x: fast.hard_swish_grad_x,
    gelu.forward: fast.gelu, gelu.grad_x: fast.gelu_grad_x,
}  # fmt: skip
APPROXIMATE = {gelu.forward: fast.approximate_gelu, gelu.grad_x: fast.approximate_gelu_grad_x}


def element_by_element(lowering: Lowering, call: Call) -> list[Launch] | None:
    """An activation or its gradient, which takes the place of dy where nobody needs that any more."""
    out, *read = (call.arrays[a] for a in call.passed.arrays)
    kernel = KERNELS[call.passed]
    if call.attrs.get("approximate"):
        kernel = APPROXIMATE[call.passed]
    elif call.passed in APPROXIMATE and out.dtype != np.float32:
        return None  # the tail of the normal distribution is that of float32
    if len(read) > 1:
        lowering.overlay(out, read[0], call)
    return [Launch(call.name, kernel, (out, *read), tuple(read), (out,), (call,))]


def straight_line(lowering: Lowering, call: Call) -> list[Launch]:
    """A factor and an offset, or the gradient's factor."""
    out, x = (call.arrays[a] for a in call.passed.arrays)
    lowering.overlay(out, x, call)
    factor, offset = (out.dtype.type(call.attrs.get(name, 0.0)) for name in ("factor", "offset"))
    return [Launch(call.name, fast.affine, (out, x, factor, offset), (x,), (out,), (call,))]


def with_mask(lowering: Lowering, call: Call) -> list[Launch]:
    """A hard sigmoid, and its mask where there is one."""
    y, x = call.arrays["y"], call.arrays["x"]
    pack = lowering.find(y, hard_sigmoid.pack_mask)
    covers, mask = (call, pack) if pack else (call,), pack.arrays["mask"] if pack else absent(2, np.uint8)
    alpha, beta = (y.dtype.type(call.attrs[name]) for name in ("alpha", "beta"))
    args = (flat(y), mask, flat(x), alpha, beta)
    return [Launch(named(covers), fast_hard_sigmoid.forward, args, (x,), present(y, mask), covers)]


def through_mask(lowering: Lowering, call: Call) -> list[Launch]:
    """The gradient of a hard sigmoid, which takes the place of dy where nobody needs that any more."""
    dx, dy, mask = (call.arrays[a] for a in call.passed.arrays)
    lowering.overlay(dx, dy, call)
    args = (flat(dx), flat(dy), mask, dx.dtype.type(call.attrs["alpha"]))
    return [Launch(call.name, fast_hard_sigmoid.grad_x, args, (dy, mask), (dx,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    element_by_element: KERNELS,
    straight_line: (affine.forward, affine.grad_x),
    with_mask: (hard_sigmoid.forward,),
    through_mask: (hard_sigmoid.grad_x,),
}
