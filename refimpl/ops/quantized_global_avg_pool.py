"""Mean of the whole map in whole numbers, as TensorFlow Lite's MEAN of int8: the division is part of the factor.

    y[n,c] = saturated(requantized(Σ_{h,w} (x[n,h,w,c] − x_zero), multiplier, shift) + y_zero, low, high)

where multiplier and shift stand for x_scale/(y_scale·H·W). They hold for maps of `pixels` = H·W alone, which others are
refused by; 0 does not ask. The gradient of the whole numbers, with rounding taken for the identity, is
dx[n,h,w,c] = dy[n,c]·multiplier·2^(shift − 31) where low < y < high, else 0.
Dimensions: N samples, H W rows and columns, C channels, B = ⌈C/8⌉ bytes of mask, a bit for each channel.
"""

import numpy as np

from ..kernels.geometry import mask_of
from ..kernels.passes import ShapeError, declare
from ..kernels.requantize import requantized, saturated
from ..kernels.rounding import inner, passes_bit, slope_of

SHAPES = {"x": "int8: N H W C", "y": "int8: N C", "mask": "uint8: N B", "dy": "N C", "dx": "N H W C"}
mask_bytes, BYTES = mask_of("C")


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
    y[n, c] = saturated(requantized(total, multiplier, shift, twice) + y_zero, low, high, y)


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=BYTES)
def pack_mask(t, mask, y, low=-128, high=127):
    """Mask of y, (N, C), as bytes, (N, B), with a bit for each of eight channels, set where y is at no end."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < y.shape[1] else y.shape[1]
    byte = 0
    for c in range(8 * b, end):
        if inner(y[n, c], low, high):
            byte |= 1 << (c - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N H W C", writes="dx", derive=mask_bytes)
def grad_x(t, dx, dy, mask, multiplier=1 << 30, shift=0):
    """Gradient of x, (N, H, W, C), from dy, (N, C), and mask, (N, B). H and W must be given."""
    # forward: y[n,c] = saturated(requantized(Σ_{h,w} (x[n,h,w,c] − x_zero)) + y_zero)
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    value = dy[n, c] * dx.dtype.type(slope_of(multiplier, shift))
    dx[n, h, col, c] = value if passes_bit(mask, n, c) else dx.dtype.type(0)
