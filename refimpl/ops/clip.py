"""Clipping: y = min(max(x, low), high). With dy = ∂L/∂y, dx = dy where low ≤ x ≤ high, else 0.

NaN stays NaN, without a gradient. A bound of −∞ or ∞ is none. What backward keeps is one bit an element; the mask and
its bits are those of `relu`, here of x, for at a bound the gradient passes, as PyTorch's does.
Dimensions: N samples, E elements a sample (all axes after the first), B = ⌈E/8⌉ bytes of mask. Any float dtype.
"""

import math

from ..kernels.geometry import mask_bytes, mask_classes
from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N E*", "y": "N E*", "mask": "uint8: N B", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


def derive(sizes, attrs):
    """B of a mask; ShapeError where no number lies between the bounds."""
    if "low" in attrs and not attrs["low"] <= attrs["high"]:
        raise ShapeError(f"low must be at most high, got low {attrs['low']} and high {attrs['high']}")
    return mask_bytes(sizes, attrs)


def drawn(pick, large):
    """Bounds around 0 or on one side of it, one of them absent at times."""
    low = pick(-9, 9) / 4
    return {}, {"low": (low, -math.inf)[pick(0, 1)], "high": (low + pick(0, 9) / 4, math.inf)[pick(0, 1)]}


@declare(SHAPES, items="N E", writes="y", derive=derive)
def forward(t, y, x, low=-math.inf, high=math.inf):
    """Output y = min(max(x, low), high), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    value = x[n, e]
    value = y.dtype.type(low) if value < low else value
    y[n, e] = y.dtype.type(high) if value > high else value


@declare(SHAPES, items="N B", writes="mask", derive=derive, alike=mask_classes)
def pack_mask(t, mask, x, low=-math.inf, high=math.inf):
    """Mask of x, (N, E), as bytes, (N, B), with a bit for each of eight elements, set where low ≤ x ≤ high."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < x.shape[1] else x.shape[1]
    bottom, top = x.dtype.type(low), x.dtype.type(high)
    byte = 0
    for e in range(8 * b, end):
        value = x[n, e]
        if (value >= bottom) & (value <= top):
            byte |= 1 << (e - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N E", writes="dx", derive=derive)
def grad_x(t, dx, dy, mask):
    """Gradient of x, (N, E): dy where the bit of mask, (N, B), is set, else 0."""
    # forward: y = min(max(x, low), high); the bit tells where y is x
    n, e = divmod(t, dx.shape[1])
    passes = (mask[n, e >> 3] >> (e & 7)) & 1
    value = dy[n, e]
    dx[n, e] = value if passes else dx.dtype.type(0)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx where low ≤ x ≤ high, else 0


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.clip(name, x, -pick(0, 4) / 4, pick(0, 4) / 4)
