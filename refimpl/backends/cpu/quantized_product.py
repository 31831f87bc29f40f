"""Products of int8 rows with int8 or int16 weights, summed exactly in int32.

Weights are packed into panels of COLUMNS columns: word g of column k holds rows g·each … of w, each = 4 of int8 or 2 of
int16, zeros where there are none. Rows are walked ROWS at a time, so that a panel's vector is read once for ROWS rows;
NARROW_ROWS at a time where the second vector of a panel is of no use.
"""

import numpy as np

from ...kernels.kernel import inline, inlined
from .integers import (
    DOT4,
    dot,
    every,
    join2,
    join4,
    narrow,
    packed,
    requantized_once,
    requantized_right,
    requantized_twice,
    rightwards,
    spread,
    widen,
)
from .simd import LANES

COLUMNS = 2 * LANES
ROWS = 4
NARROW_ROWS = 8  # where no more than LANES columns of a panel are used


def each(dtype) -> int:
    """Products that a lane sums at a time with weights of a dtype."""
    return 4 if DOT4 and np.dtype(dtype) == np.int8 else 2


def operand(dtype) -> np.dtype:
    """The dtype in which rows and weights are multiplied: int16 where the weights are, or bytes cannot be summed."""
    return np.dtype(np.int8 if each(dtype) == 4 else np.int16)


def words(depth: int, each: int) -> int:
    """Words that hold `depth` numbers."""
    return (depth + each - 1) // each


_words = inline(words)


@inline
def pack(panel, at, sums, sums_at, w, w_at, stride, depth, columns, each, width=COLUMNS):
    """Pack `columns` columns of int8 or int16 w (depth, stride) into a panel, and their sums, int32.

    width: columns of the panel that are filled at all, COLUMNS or LANES.
    """
    for v in range(0, width, LANES):
        n = max(0, min(LANES, columns - v))
        total = every(0)
        for g in range(_words(depth, each)):
            d, left, to = w_at + each * g * stride + v, depth - each * g, at + g * COLUMNS + v
            r0 = widen(w, d, n)
            r1 = widen(w, d + stride, n if left > 1 else 0)
            total = total + (r0 + r1)
            if each == 4:
                r2 = widen(w, d + 2 * stride, n if left > 2 else 0)
                r3 = widen(w, d + 3 * stride, n if left > 3 else 0)
                total = total + (r2 + r3)
                narrow(panel, to, join4(r0, r1, r2, r3), LANES)
            else:
                narrow(panel, to, join2(r0, r1), LANES)
        narrow(sums, sums_at + v, total, LANES)


@inline
def block(total, to, x, a0, a1, a2, a3, panel, at, count, each, s0, s1):
    """total (ROWS, COLUMNS) int32 = four rows of x, each from its element on, times `count` words of a panel.

    x: bytes, of which each counts OFFSET more, or int16, as the panel; it is read in whole words of `each`. s0, s1:
    what the sums of each row begin with.
    """
    s00, s01, s10, s11, s20, s21, s30, s31 = s0, s1, s0, s1, s0, s1, s0, s1
    for g in range(count):
        b0, b1 = packed(panel, at + g * COLUMNS), packed(panel, at + g * COLUMNS + LANES)
        a = spread(x, a0 + each * g)
        s00, s01 = dot(s00, a, b0, x), dot(s01, a, b1, x)
        a = spread(x, a1 + each * g)
        s10, s11 = dot(s10, a, b0, x), dot(s11, a, b1, x)
        a = spread(x, a2 + each * g)
        s20, s21 = dot(s20, a, b0, x), dot(s21, a, b1, x)
        a = spread(x, a3 + each * g)
        s30, s31 = dot(s30, a, b0, x), dot(s31, a, b1, x)
    _put(total, to, s00, s01, s10, s11, s20, s21, s30, s31)


@inline
def narrow_block(total, to, x, start, stride, last, panel, at, count, each, s):
    """The same for the first LANES columns and NARROW_ROWS rows, `stride` elements apart, none beyond number `last`.

    s: what each sum begins with.
    """
    s0, s1, s2, s3, s4, s5, s6, s7 = s, s, s, s, s, s, s, s
    a1, a2, a3 = start + min(1, last) * stride, start + min(2, last) * stride, start + min(3, last) * stride
    a4, a5, a6 = start + min(4, last) * stride, start + min(5, last) * stride, start + min(6, last) * stride
    a7 = start + min(7, last) * stride
    for g in range(count):
        b = packed(panel, at + g * COLUMNS)
        s0, s1 = dot(s0, spread(x, start + each * g), b, x), dot(s1, spread(x, a1 + each * g), b, x)
        s2, s3 = dot(s2, spread(x, a2 + each * g), b, x), dot(s3, spread(x, a3 + each * g), b, x)
        s4, s5 = dot(s4, spread(x, a4 + each * g), b, x), dot(s5, spread(x, a5 + each * g), b, x)
        s6, s7 = dot(s6, spread(x, a6 + each * g), b, x), dot(s7, spread(x, a7 + each * g), b, x)
    narrow(total, to, s0, LANES)
    narrow(total, to + COLUMNS, s1, LANES)
    narrow(total, to + 2 * COLUMNS, s2, LANES)
    narrow(total, to + 3 * COLUMNS, s3, LANES)
    narrow(total, to + 4 * COLUMNS, s4, LANES)
    narrow(total, to + 5 * COLUMNS, s5, LANES)
    narrow(total, to + 6 * COLUMNS, s6, LANES)
    narrow(total, to + 7 * COLUMNS, s7, LANES)


@inline
def _put(total, to, s00, s01, s10, s11, s20, s21, s30, s31):
    narrow(total, to, s00, LANES)
    narrow(total, to + LANES, s01, LANES)
    narrow(total, to + COLUMNS, s10, LANES)
    narrow(total, to + COLUMNS + LANES, s11, LANES)
    narrow(total, to + 2 * COLUMNS, s20, LANES)
    narrow(total, to + 2 * COLUMNS + LANES, s21, LANES)
    narrow(total, to + 3 * COLUMNS, s30, LANES)
    narrow(total, to + 3 * COLUMNS + LANES, s31, LANES)


@inlined
def finish(y, to, across, totals, of, step, rows, multiplier, shift, lanes, y_zero, low, high, twice):
    """Requantize a column of LANES sums in each of `rows` rows, and write the first lanes.

    y: from element `to` on, `across` elements from row to row; totals: from `of` on, `step` from row to row;
    multiplier, shift: vectors. Each way has a loop of its own, so that none waits for what another would prepare.
    """
    if twice:
        for r in range(rows):
            value = widen(totals, of + r * step, LANES)
            narrow(y, to + r * across, requantized_twice(value, multiplier, shift, y_zero, low, high), lanes)
    elif rightwards(shift):
        for r in range(rows):
            value = widen(totals, of + r * step, LANES)
            narrow(y, to + r * across, requantized_right(value, multiplier, shift, y_zero, low, high), lanes)
    else:
        for r in range(rows):
            value = widen(totals, of + r * step, LANES)
            narrow(y, to + r * across, requantized_once(value, multiplier, shift, y_zero, low, high), lanes)
