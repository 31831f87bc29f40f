"""How the fast kernels do groups of calls. Each rule returns launches, or None where it does not apply."""

import numpy as np

from ...compiler import grouping
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import add, copy, finiteness
from ..common import absent, activation, flat, named, present, through
from . import add as fast_add
from . import copy as fast_copy
from . import finiteness as fast_finiteness
from . import relu as fast_relu


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


def check_gradient(lowering: Lowering, call: Call) -> list[Launch]:
    """Is a gradient finite?"""
    bad, dw = call.arrays["bad"], call.arrays["dw"]
    args = (bad, dw.reshape((call.sizes["E"],)), np.finfo(dw.dtype).max)
    return [Launch(call.name, fast_finiteness.check, args, (dw,), (bad,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    rectify: (add.forward, *grouping.RECTIFIERS),
    masked_scale: grouping.PASSED,
    sum_of_two: (add.forward,),
    copied: (copy.forward,),
    check_gradient: (finiteness.check,),
}
