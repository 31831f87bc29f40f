"""Products and sums of tensors of which one is the same along some axes, on the fast kernels."""

from typing import NamedTuple

from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...ops import add_spread, add_weight, mul_spread, mul_weight, scale_channels
from ..common import absent, present, seen
from . import spread


class Axis(NamedTuple):
    """An axis of a tensor: its length, and elements from one index to the next of what is spread along it."""

    length: int
    step: int


def axes(x: Buffer, w: Buffer) -> list[Axis]:
    """The axes of x, (N, H, W, C), with the steps of w there, (U, V, D) or, one for each sample, (N, U, V, D).

    Neighbours that lie together in both are one axis; samples, of which a run may have fewer, stay the first.
    """
    steps, below = [], 1
    for length in reversed(w.shape[-3:]):
        steps.append(below if length > 1 else 0)
        below *= length
    joined: list[Axis] = []
    for axis in map(Axis, x.shape[1:], reversed(steps)):
        if axis.length > 1 and joined and joined[-1].step == axis.step * axis.length:
            joined[-1] = Axis(joined[-1].length * axis.length, axis.step)
        elif axis.length > 1:
            joined.append(axis)
    return [Axis(x.shape[0], below if len(w.shape) > 3 else 0), *joined]


def spreads(lowering: Lowering, call: Call) -> list[Launch]:
    """x·w or x + w, or the gradient dy·w."""
    kernel = spread.total if call.passed in SUMS else spread.product
    out, x, w = whole(call)
    found = axes(x, w)
    row = found.pop() if len(found) > 1 else Axis(1, 0)
    found = [Axis(1, 0)] * (spread.OUTER - len(found)) + found
    lengths, steps = (tuple(column) for column in zip(*found, strict=True))
    if call.passed in BACK:
        lowering.overlay(out, x, call)
    args = (out, x, w, lengths, steps, row.length, row.step)
    return [Launch(call.name, kernel, args, (x, w), (out,), (call,))]


def whole(call: Call) -> list[Buffer]:
    """The arrays of a call, factors of channels, (N, C), as those of maps, (N, 1, 1, C)."""
    found = seen(call)
    if call.passed.operator == scale_channels.forward.operator:
        found = [b.reshape((b.shape[0], 1, 1, b.shape[1])) if len(b.shape) == 2 else b for b in found]
    return found


def summed(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of what was spread, where it is the sums over the rows of each group."""
    out, dy, *more = whole(call)
    x = more[0] if more else absent(4, dy.dtype)
    samples, *found = axes(dy, out)
    if not found or found[-1].step != 1 or [axis.step for axis in found[:-1]] not in ([], [0]):
        return None
    run, rows = found[-1].length, found[0].length if len(found) > 1 else 1
    slices = 0 if samples.step else spread.slices(samples.length * rows)
    partials = lowering.scratch(call, "partials", (slices, run), dy.dtype) if slices else absent(2, dy.dtype)
    args, reads = (out, partials, dy, x, run), (dy, *more)
    return [Launch(call.name, spread.sums, args, reads, (out,), (call,), present(partials))]


SUMS = (add_weight.forward, add_spread.forward)
BACK = (mul_weight.grad_x, mul_spread.grad_x, scale_channels.grad_x)
PRODUCTS = (mul_weight.forward, mul_spread.forward, scale_channels.forward, *BACK)
RULES = {  # rule → the passes of the calls that it begins at
    spreads: (*SUMS, *PRODUCTS),
    summed: (mul_weight.grad_w, add_weight.grad_w, mul_spread.grad_s, add_spread.grad_s, scale_channels.grad_s),
}
