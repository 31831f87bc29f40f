"""The sum of two branches in whole numbers, element by element in runs that the compiler makes vectors of."""

import numpy as np
from numba import prange

from ...compiler.executed import IADD, IMUL, executes
from ...kernels.kernel import fast
from ...kernels.requantize import clipped, double, single
from ...ops.quantized_add import BITS

RUN = 4096  # elements of an item


@executes(
    lambda y, a, b, zeros, multipliers, shifts, low, high, twice: (IMUL * 3 + IADD * (10 if twice else 7)) * y.size
)
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
        else:
            for e in range(start, end):
                first = single((np.int32(a_[e]) - zeros[0]) << BITS, multipliers[0], shifts[0])
                second = single((np.int32(b_[e]) - zeros[1]) << BITS, multipliers[1], shifts[1])
                y_[e] = np.int8(clipped(single(first + second, multipliers[2], shifts[2]) + zeros[2], low, high))
