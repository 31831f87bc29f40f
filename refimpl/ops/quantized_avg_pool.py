"""Mean of each window in whole numbers, as TensorFlow Lite's AVERAGE_POOL of int8: y has the scale of x.

    y[n,p,q,c] = saturated(Σ_{r,s} x[n, p·stride − top + r, q·stride − left + s, c] / count, low, high)

rounded to the nearest, a half away from zero. Taps outside the map are skipped and `count` is the number of those
inside; where `count_include_pad` (which TensorFlow Lite has not; our reading) it is R·S, and a tap outside the map is
the zero point x_zero. It has no gradient.
Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns.
"""

import numpy as np

from ..kernels.geometry import POOL_OUT, drawn_pool, pool_derive
from ..kernels.passes import declare
from ..kernels.requantize import saturated

SHAPES = {"x": "int8: N H W C", "y": "int8: N P Q C"}
drawn = drawn_pool


@declare(SHAPES, items="N P Q C", writes="y", derive=pool_derive, alike=POOL_OUT)
def forward(
    t, y, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), count_include_pad=True, x_zero=0, low=-128, high=127
):
    """Output y, (N, P, Q, C), the mean of each window of x, (N, H, W, C)."""
    rest, c = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    total = np.int32(0)
    count = 0
    for r in range(window[0]):
        h = p * stride[0] - pad[0][0] + r
        if 0 <= h < x.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] - pad[1][0] + s
                if 0 <= col < x.shape[2]:
                    total += np.int32(x[n, h, col, c])
                    count += 1
    if count_include_pad:
        total += (window[0] * window[1] - count) * x_zero
        count = window[0] * window[1]
    half = count // 2
    mean = (total + (half if total >= 0 else count - 1 - half)) // count
    y[n, p, q, c] = y.dtype.type(saturated(mean, low, high))
