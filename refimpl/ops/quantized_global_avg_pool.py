"""Mean of the whole map in whole numbers, as TensorFlow Lite's MEAN of int8: the division is part of the factor.

    y[n,c] = saturated(requantized(Σ_{h,w} (x[n,h,w,c] − x_zero), multiplier, shift) + y_zero, low, high)

where multiplier and shift stand for x_scale/(y_scale·H·W). They hold for maps of `pixels` = H·W alone, which others are
refused by; 0 does not ask. It has no gradient. Dimensions: N samples, H W rows and columns, C channels.
"""

import numpy as np

from ..kernels.passes import ShapeError, declare
from ..kernels.requantize import requantized, saturated

SHAPES = {"x": "int8: N H W C", "y": "int8: N C"}


def derive(sizes, attrs):
    """Nothing follows; ShapeError where the factor is for maps of another size."""
    pixels = sizes["H"] * sizes["W"]
    if attrs["pixels"] not in (0, pixels):
        raise ShapeError(
            f"x has {sizes['H']}x{sizes['W']} pixels, but the factor was made for {attrs['pixels']}: quantize the net "
            "for maps of this size"
        )
    return {}


def drawn(pick, large):
    """Maps of any size."""
    most = 32 if large else 4
    return {"N": pick(1, 3), "H": pick(1, most), "W": pick(1, most), "C": pick(1, 8 * most)}, {"pixels": 0}


@declare(SHAPES, items="N C", writes="y", derive=derive, sums="H W")
def forward(
    t, y, x, x_zero=0, multiplier=1 << 30, shift=0, y_zero=0, low=-128, high=127, twice=False, pixels=0
):  # fmt: skip
    """Output y, (N, C), the mean of each channel of x, (N, H, W, C)."""
    n, c = divmod(t, y.shape[1])
    total = np.int32(0)
    for h in range(x.shape[1]):
        for col in range(x.shape[2]):
            total += np.int32(x[n, h, col, c])
    total -= x_zero * (x.shape[1] * x.shape[2])
    y[n, c] = y.dtype.type(saturated(requantized(total, multiplier, shift, twice) + y_zero, low, high))
