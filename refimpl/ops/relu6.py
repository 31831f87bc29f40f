"""Rectifier capped at 6: y = min(max(x, 0), 6). dx = dy where 0 < y < 6, else 0. NaN stays NaN, without a gradient.

The mask and its bits are those of `relu`.
Dimensions: N samples, E elements a sample (all axes after the first), B = ⌈E/8⌉ bytes of mask. Any float dtype.
"""

from ..kernels.geometry import mask_bytes, mask_classes
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "mask": "uint8: N B", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = min(max(x, 0), 6), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    value = x[n, e]
    value = y.dtype.type(0) if value <= 0 else value
    y[n, e] = y.dtype.type(6) if value >= 6 else value


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=mask_classes)
def pack_mask(t, mask, y):
    """Mask of y, (N, E), as bytes, (N, B), with a bit for each of eight elements, set where the gradient passes."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < y.shape[1] else y.shape[1]
    byte = 0
    for e in range(8 * b, end):
        value = y[n, e]
        if (value > 0) & (value < 6):
            byte |= 1 << (e - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N E", writes="dx", derive=mask_bytes)
def grad_x(t, dx, dy, mask):
    """Gradient of x, (N, E): dy where the bit of mask, (N, B), is set, else 0."""
    # forward: y = min(max(x, 0), 6); the bit tells where y follows x
    n, e = divmod(t, dx.shape[1])
    passes = (mask[n, e >> 3] >> (e & 7)) & 1
    value = dy[n, e]
    dx[n, e] = value if passes else dx.dtype.type(0)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx where 0 < y < 6, else 0
