"""Maximum of each window in whole numbers: y[n,p,q,c] = max_{r,s} x[n, p·stride − top + r, q·stride − left + s, c].

y has the scale of x, for a scale is above 0; then it is saturated at low and high. Taps outside the map are skipped. It
has no gradient. Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns.
"""

from ..kernels.geometry import POOL_OUT, drawn_pool, pool_derive
from ..kernels.passes import declare
from ..kernels.requantize import saturated

SHAPES = {"x": "int8: N H W C", "y": "int8: N P Q C"}
drawn = drawn_pool


@declare(SHAPES, items="N P Q C", writes="y", derive=pool_derive, alike=POOL_OUT)
def forward(t, y, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), low=-128, high=127):
    """Output y, (N, P, Q, C), the maximum of each window of x, (N, H, W, C)."""
    rest, c = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    first = True
    best = y.dtype.type(0)
    for r in range(window[0]):
        h = p * stride[0] - pad[0][0] + r
        if 0 <= h < x.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] - pad[1][0] + s
                if 0 <= col < x.shape[2]:
                    value = x[n, h, col, c]
                    best = value if first else max(best, value)
                    first = False
    y[n, p, q, c] = saturated(best, low, high)
