"""Products of int8 rows with int8 or int16 weights, summed exactly in int32.

Weights are packed into panels of COLUMNS columns: word g of column k holds rows g·each … of w, each = 4 of int8 or 2 of
int16, zeros where there are none. Rows are walked ROWS at a time, so that a panel's vector is read once for ROWS rows.
"""

import numpy as np

from ...kernels.kernel import inline
from .integers import DOT4, dot, every, join2, join4, narrow, packed, spread, widen
from .simd import LANES

COLUMNS = 2 * LANES
ROWS = 4


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
def pack(panel, at, sums, sums_at, w, w_at, stride, depth, columns, each):
    """Pack `columns` ≤ COLUMNS columns of int8 or int16 w (depth, stride) into a panel, and their sums, int32."""
    for v in range(0, COLUMNS, LANES):
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
def block(total, to, x, a0, a1, a2, a3, panel, at, count, each):
    """total (ROWS, COLUMNS) int32 = four rows of x, each from its element on, times `count` words of a panel.

    x: bytes, of which each counts OFFSET more, or int16, as the panel; it is read in whole words of `each`.
    """
    s00, s01, s10, s11 = every(0), every(0), every(0), every(0)
    s20, s21, s30, s31 = every(0), every(0), every(0), every(0)
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
def _put(total, to, s00, s01, s10, s11, s20, s21, s30, s31):
    narrow(total, to, s00, LANES)
    narrow(total, to + LANES, s01, LANES)
    narrow(total, to + COLUMNS, s10, LANES)
    narrow(total, to + COLUMNS + LANES, s11, LANES)
    narrow(total, to + 2 * COLUMNS, s20, LANES)
    narrow(total, to + 2 * COLUMNS + LANES, s21, LANES)
    narrow(total, to + 3 * COLUMNS, s30, LANES)
    narrow(total, to + 3 * COLUMNS + LANES, s31, LANES)
