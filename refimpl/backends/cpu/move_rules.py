"""Operators that only move elements on the fast kernels: slices, concatenations and transpositions."""

import math
from typing import NamedTuple

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import attach, channel_slice, concat, rearrange
from ..common import seen
from . import moves


class Digit(NamedTuple):
    """An axis of a transposition: its length, and elements from one index to the next in what is written and read."""

    length: int
    to: int
    of: int


def digits(lengths, steps, back: bool = False) -> list[Digit]:
    """The axes of `ops.rearrange`, slowest first in what is written, neighbours that stay together in one.

    back: of its gradient, which is written in the order of x.
    """
    found, below = [], math.prod(lengths)
    for length, step in zip(lengths, steps, strict=True):
        below //= length
        found.append(Digit(length, step, below) if back else Digit(length, below, step))
    joined: list[Digit] = []
    for digit in sorted((d for d in found if d.length > 1), key=lambda d: -d.to):
        last = joined[-1] if joined else None
        if last and last.of == digit.of * digit.length and last.to == digit.to * digit.length:
            joined[-1] = Digit(last.length * digit.length, digit.to, digit.of)
        else:
            joined.append(digit)
    return joined or [Digit(1, 1, 1)]


def reordered(lowering: Lowering, call: Call) -> list[Launch]:
    """A transposition or its gradient: a block is made of the innermost axes of what is written and read."""
    out, x = seen(call)
    axes = digits(call.attrs["lengths"], call.attrs["steps"], call.passed is rearrange.grad_x)
    inner = axes.pop()
    if inner.of == 1:
        row = axes.pop() if axes else Digit(1, 0, 0)
        kernel, block, y_row, x_row = moves.blocks_copied, (row.length, inner.length), row.to, row.of
    else:
        row = next(d for d in axes if d.of == 1)
        axes.remove(row)
        kernel, block, y_row, x_row = moves.blocks_transposed, (inner.length, row.length), row.to, inner.of
    axes = [Digit(1, 0, 0)] * (moves.OUTER - len(axes)) + axes
    lengths, y_steps, x_steps = (tuple(column) for column in zip(*axes, strict=True))
    args = (out, x, lengths, y_steps, x_steps, block, y_row, x_row)
    return [Launch(call.name, kernel, args, (x,), (out,), (call,))]


def part_of_rows(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The same channels of every row of floats: those of a slice, or of one of several that are joined."""
    out, x = seen(call)
    if out.dtype.kind != "f":
        return None  # a concatenation joins integers too
    start, y_row, x_row = call.attrs["start"], out.shape[1], x.shape[1]
    starts = (start, 0) if call.passed is concat.forward else (0, start)
    args = (out, x, starts[0], y_row, starts[1], x_row, min(y_row, x_row))
    return [Launch(call.name, moves.rows, args, tuple(call.reads), (out,), (call,))]


def slice_placed(lowering: Lowering, call: Call) -> list[Launch]:
    """The gradient of a slice, in its place among zeros."""
    dx, dy = seen(call)
    return [Launch(call.name, moves.placed, (dx, dy, call.attrs["start"]), (dy,), (dx,), (call,))]


def weights_attached(lowering: Lowering, call: Call) -> list[Launch]:
    """Weights beside each row."""
    y, x, w = seen(call)
    return [Launch(call.name, moves.attached, (y, x, w, call.attrs["after"]), (x, w), (y,), (call,))]


def weights_detached(lowering: Lowering, call: Call) -> list[Launch]:
    """The part of a gradient that does not belong to attached weights."""
    dx, dy = seen(call)
    own, width = dx.shape[3], dy.shape[3]
    args = (dx, dy, 0, own, 0 if call.attrs["after"] else width - own, width, own)
    return [Launch(call.name, moves.rows, args, (dy,), (dx,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    reordered: (rearrange.forward, rearrange.grad_x),
    part_of_rows: (channel_slice.forward, concat.forward, concat.grad_x),
    slice_placed: (channel_slice.grad_x,),
    weights_attached: (attach.forward,),
    weights_detached: (attach.grad_x,),
}
