"""Sum of two branches in whole numbers, as TensorFlow Lite's ADD of int8: both first take one scale with 20 more bits.

    a' = requantized((a − a_zero)·2^20, a_multiplier, a_shift), b' likewise
    y = saturated(requantized(a' + b', y_multiplier, y_shift) + y_zero, low, high)

where the three pairs stand for a_scale/s, b_scale/s and s/(2^20·y_scale), s = 2·max(a_scale, b_scale), so that the sum
stays within 30 bits. It has no gradient. Dimensions: N samples, E elements a sample (all axes after the first).
"""

import numpy as np

from ..kernels.passes import declare
from ..kernels.requantize import fixed, requantized, saturated

SHAPES = {"a": "int8: N E*", "b": "int8: N E*", "y": "int8: N E*"}
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
    y[n, e] = y.dtype.type(saturated(scaled, low, high))
