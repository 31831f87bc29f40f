"""The real numbers of whole ones, in runs that the compiler makes vectors of."""

import numpy as np
from numba import prange

from ...compiler.executed import IADD, MUL, executes
from ...kernels.kernel import fast

RUN = 4096  # elements of an item


@executes(lambda y, x, scale, zero: (MUL + IADD) * y.size)
@fast
def forward(y, x, scale, zero):
    """Write y (N, K) from x (N, K), int8 or int32, and scale (M,), one for all or one of each k."""
    width = y.shape[1]
    pieces = (width + RUN - 1) // RUN
    for t in prange(y.shape[0] * pieces):
        n, piece = divmod(np.int64(t), pieces)
        begin, end = piece * RUN, min((piece + 1) * RUN, width)
        if scale.shape[0] == 1:
            factor = scale[0]
            for k in range(begin, end):
                y[n, k] = factor * y.dtype.type(np.int32(x[n, k]) - zero)
        else:
            for k in range(begin, end):
                y[n, k] = scale[k] * y.dtype.type(np.int32(x[n, k]) - zero)
