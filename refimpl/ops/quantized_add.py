"""Sum of two branches in whole numbers, as TensorFlow Lite's ADD of int8: both first take one scale with 20 more bits.

    a' = requantized((a − a_zero)·2^20, a_multiplier, a_shift), b' likewise
    y = saturated(requantized(a' + b', y_multiplier, y_shift) + y_zero, low, high)

where the three pairs stand for a_scale/s, b_scale/s and s/(2^20·y_scale), s = 2·max(a_scale, b_scale), so that the sum
stays within 30 bits.

Gradients are those of the whole numbers, with rounding taken for the identity: da = dy·a_scale/y_scale where
low < y < high, else 0, and db likewise. One bit an element is kept, as `relu` has them.
Dimensions: N samples, E elements a sample (all axes after the first), B = ⌈E/8⌉ bytes of mask.
"""

import numpy as np

from ..kernels.geometry import mask_bytes, mask_classes
from ..kernels.passes import declare
from ..kernels.requantize import fixed, requantized, saturated
from ..kernels.rounding import inner, passes_bit, slope_of

SHAPES = {
    "a": "int8: N E*", "b": "int8: N E*", "y": "int8: N E*", "mask": "uint8: N B", "dy": "N E*", "da": "N E*",
    "db": "N E*",
}  # fmt: skip
INPUTS = ("a", "b")
BITS = 20  # that both get


def settings(a_scale: float, b_scale: float, y_scale: float) -> dict[str, int]:
    """Multipliers and shifts of three scales; ValueError where they are too far apart for 31 bits of shift."""
    common = 2 * max(a_scale, b_scale)
    factors = {"a": a_scale / common, "b": b_scale / common, "y": common / (2**BITS * y_scale)}
    pairs = {name: fixed(factor) for name, factor in factors.items()}
    return {f"{name}_{what}": pair[i] for name, pair in pairs.items() for i, what in enumerate(("multiplier", "shift"))}


@declare(SHAPES, items="N E", writes="y")
def forward(
    t, y, a, b, a_zero=0, a_multiplier=1 << 30, a_shift=0, b_zero=0, b_multiplier=1 << 30, b_shift=0,
    y_zero=0, y_multiplier=1 << 30, y_shift=0, low=-128, high=127, twice=False,
):  # fmt: skip
    """Output y, (N, E), the sum of a and b, (N, E): arrays of any number of axes seen as two."""
    n, e = divmod(t, y.shape[1])
    first = requantized((np.int32(a[n, e]) - a_zero) << BITS, a_multiplier, a_shift, twice)
    second = requantized((np.int32(b[n, e]) - b_zero) << BITS, b_multiplier, b_shift, twice)
    scaled = requantized(first + second, y_multiplier, y_shift, twice) + y_zero
    y[n, e] = saturated(scaled, low, high, y)


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=mask_classes)
def pack_mask(t, mask, y, low=-128, high=127):
    """Mask of y, (N, E), as bytes, (N, B), with a bit for each of eight elements, set where y is at no end."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < y.shape[1] else y.shape[1]
    byte = 0
    for e in range(8 * b, end):
        if inner(y[n, e], low, high):
            byte |= 1 << (e - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N E", writes="da", derive=mask_bytes)
def grad_a(t, da, dy, mask, a_multiplier=1 << 30, a_shift=0, y_multiplier=1 << 30, y_shift=0):
    """Gradient of a, (N, E), from dy, (N, E), and mask, (N, B)."""
    # forward: y = saturated(requantized(requantized((a − a_zero)·2^20) + b') + y_zero)
    n, e = divmod(t, da.shape[1])
    factor = slope_of(a_multiplier, a_shift) * slope_of(y_multiplier, y_shift) * (1 << BITS)
    value = dy[n, e] * da.dtype.type(factor)
    da[n, e] = value if passes_bit(mask, n, e) else da.dtype.type(0)


@declare(SHAPES, items="N E", writes="db", derive=mask_bytes)
def grad_b(t, db, dy, mask, b_multiplier=1 << 30, b_shift=0, y_multiplier=1 << 30, y_shift=0):
    """Gradient of b, (N, E), from dy, (N, E), and mask, (N, B)."""
    # forward: y = saturated(requantized(a' + requantized((b − b_zero)·2^20)) + y_zero)
    n, e = divmod(t, db.shape[1])
    factor = slope_of(b_multiplier, b_shift) * slope_of(y_multiplier, y_shift) * (1 << BITS)
    value = dy[n, e] * db.dtype.type(factor)
    db[n, e] = value if passes_bit(mask, n, e) else db.dtype.type(0)
