"""Are all values of an array finite? The values themselves are looked at: a product of finite ones may overflow."""

from functools import partial

import numpy as np

from ..kernels.kernel import fast


@partial(fast, parallel=False)
def _all_within(values, largest):
    """Is every |v| ≤ largest of values (E,)? A NaN is not."""
    found = True
    for i in range(values.shape[0]):
        found &= abs(values[i]) <= largest  # no early end: that would not vectorise
    return found


def all_finite(values: np.ndarray) -> bool:
    """Is every element of a float array finite? Of a contiguous one nothing is copied, and no array is made."""
    if values.dtype not in (np.float32, np.float64):
        return bool(np.isfinite(values).all())
    return _all_within(values.reshape(-1), np.finfo(values.dtype).max)
