"""Copy of an array, a run of elements at a time."""

import numpy as np
from numba import prange

from ...compiler.executed import NOTHING, executes
from ...kernels.kernel import fast
from .add import RUN


@executes(lambda y, x: NOTHING)
@fast
def forward(y, x):
    """Output y = x, of the same number of elements."""
    into, given = y.reshape(-1), x.reshape(-1)
    count = into.shape[0]
    for t in prange((count + RUN - 1) // RUN):
        first = np.int64(t) * RUN
        run = slice(first, min(first + RUN, count))
        into[run] = given[run]
