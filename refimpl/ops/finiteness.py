"""Is a gradient finite? One flag for every SLICE elements, 1 where one of them is a NaN or an infinity.

The values themselves are looked at: a product or a sum of finite ones may overflow. `check` runs for each trained
parameter at the end of backward; the flags of all parameters lie side by side in one array, which the host reads once.
Dimensions: E elements of a gradient of any shape, L = ⌈E / SLICE⌉ slices of it.
"""

import math

from ..kernels.geometry import SLICE, slice_derive, slice_lengths
from ..kernels.passes import declare

SHAPES = {"dw": "E*", "bad": "uint8: L"}


@declare(SHAPES, items="L", writes="bad", derive=slice_derive, alike={"L": slice_lengths})
def check(t, bad, dw):
    """Flag of each slice of dw, (E,): bad, (L,), is 1 where a value is not finite, else 0."""
    end = (t + 1) * SLICE if (t + 1) * SLICE < dw.shape[0] else dw.shape[0]
    largest = dw.dtype.type(math.inf)
    found = 0
    for e in range(t * SLICE, end):
        if not abs(dw[e]) < largest:  # no early end: every gradient costs the same
            found = 1
    bad[t] = found
