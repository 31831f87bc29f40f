"""The sum of two branches in whole numbers, LANES elements at a time, or in runs that the compiler makes vectors of."""

import numpy as np
from numba import prange

from ...compiler.executed import IADD, IMUL, Ops, executes, pieces
from ...kernels.kernel import fast, inlined
from ...kernels.requantize import HIGH, LOW, clipped, double, single
from ...ops.quantized_add import BITS
from . import tiles
from .integers import every, narrow, raised, requantized_right, widen
from .simd import LANES, address

RUN = 4096  # elements of an item


def in_vectors(shifts, twice: bool) -> bool:
    """Is a sum made of whole vectors? As `ops.quantized_add.settings` finds the factors it is, but if rounded twice."""
    return not twice and shifts[0] <= 0 and shifts[1] <= 0 and shifts[2] < 0


def forward_executes(y, a, b, zeros, multipliers, shifts, low, high, twice) -> Ops:
    """Whole vectors of each run, or every element."""
    if not in_vectors(shifts, twice):
        return (IMUL * 3 + IADD * (10 if twice else 7)) * y.size
    vectors = sum(tiles.ceil_div(n, LANES) * times for n, times in pieces(y.size, RUN))
    return (IMUL * 3 + IADD * 15) * (vectors * LANES)


@executes(forward_executes)
@fast
def forward(y, a, b, zeros, multipliers, shifts, low, high, twice):
    """Write y (N, E) from a and b (N, E), int8; zeros, multipliers, shifts: of a, b and y (`ops.quantized_add`)."""
    y_, a_, b_ = y.reshape(-1), a.reshape(-1), b.reshape(-1)
    for t in prange((y.size + RUN - 1) // RUN):
        start = np.int64(t) * RUN
        end = min(start + RUN, y.size)
        if twice:
            for e in range(start, end):
                first = double((np.int32(a_[e]) - zeros[0]) << BITS, multipliers[0], shifts[0])
                second = double((np.int32(b_[e]) - zeros[1]) << BITS, multipliers[1], shifts[1])
                y_[e] = np.int8(clipped(double(first + second, multipliers[2], shifts[2]) + zeros[2], low, high))
        elif shifts[0] <= 0 and shifts[1] <= 0 and shifts[2] < 0:
            for e in range(start, end, LANES):
                n = min(LANES, end - e)
                first = scaled(address(a_), e, n, zeros[0], multipliers[0], shifts[0])
                second = scaled(address(b_), e, n, zeros[1], multipliers[1], shifts[1])
                m, s = every(multipliers[2]), every(shifts[2])
                narrow(address(y_), e, requantized_right(first + second, m, s, zeros[2], low, high), n)
        else:
            for e in range(start, end):
                first = single((np.int32(a_[e]) - zeros[0]) << BITS, multipliers[0], shifts[0])
                second = single((np.int32(b_[e]) - zeros[1]) << BITS, multipliers[1], shifts[1])
                y_[e] = np.int8(clipped(single(first + second, multipliers[2], shifts[2]) + zeros[2], low, high))


@inlined
def scaled(x, at, n, zero, multiplier, shift):
    """The first n of LANES elements in the scale of the sum: twice the number by half the factor, which is below 1."""
    twofold = raised(widen(x, at, n) - every(zero), BITS + 1)
    return requantized_right(twofold, every(multiplier), every(shift - 1), 0, LOW, HIGH)
