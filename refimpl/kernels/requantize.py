"""Requantization: a sum of 32 bits times a real factor, in whole numbers.

The factor is multiplier·2^(shift − 31): an int32 multiplier from 2^30 to 2^31 − 1 (Q31) and a shift, to the left where
it is above 0. Two roundings are published, and they differ in the last bit:

    single   one 64-bit product, one rounding: ⌊(value·multiplier + half) / 2^(31 − shift)⌋
    double   gemmlowp's: the saturating rounding doubling high multiply (value·2^left·multiplier / 2^31), then a
             rounding shift to the right

CMSIS-NN and TensorFlow Lite round twice as they are built by default, and once under a flag. Ties: `single` and the
high multiply of `double` take a half upwards, −0.5 to 0; the shift of `double` takes it away from zero, −0.5 to −1.
A factor that needs a shift of 31 and more, to either side, is refused: it is undefined in both.
"""

import math
from collections.abc import Iterable

import numpy as np

from .kernel import helper

MOST_SHIFT = 30
LOW, HIGH = np.int64(np.iinfo(np.int32).min), np.int64(np.iinfo(np.int32).max)


@helper
def single(value, multiplier, shift):
    """`value`·multiplier·2^(shift − 31), int64, rounded once, a half upwards; value: an int32."""
    right = 31 - shift
    return (np.int64(value) * multiplier + (np.int64(1) << (right - 1))) >> right


@helper
def double(value, multiplier, shift):
    """The same as gemmlowp rounds it, twice; a shift to the left saturates at the ends of int32 (undefined there)."""
    left, right = max(shift, 0), max(-shift, 0)
    shifted = min(max(np.int64(value) << left, LOW), HIGH)
    high = min((shifted * multiplier + (1 << 30)) >> 31, HIGH)
    mask = (np.int64(1) << right) - 1
    threshold = (mask >> 1) + (1 if high < 0 else 0)
    return (high >> right) + (1 if high & mask > threshold else 0)


@helper
def requantized(value, multiplier, shift, twice):
    """`value`·multiplier·2^(shift − 31) by `double` where `twice`, else by `single`."""
    if twice:
        return double(value, multiplier, shift)
    return single(value, multiplier, shift)


@helper
def saturated(value, low, high):
    """`value`, but not below `low` nor above `high`."""
    return min(max(value, low), high)


def fixed(factor: float) -> tuple[int, int]:
    """(multiplier, shift) nearest to a factor above 0; ValueError where the shift would be 31 and more.

    As TensorFlow Lite finds them: the fraction from 1/2 to 1 in 31 bits, a half upwards.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"a factor of requantization must be above 0 and finite, got {factor}")
    fraction, shift = math.frexp(factor)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if abs(shift) > MOST_SHIFT:
        least, most = math.ldexp(0.5, -MOST_SHIFT), math.ldexp(1, MOST_SHIFT)
        raise ValueError(
            f"a factor of {factor:.3g} would be shifted by {shift} bits: it must be from {least:.3g} "
            f"to below {most:.3g}"
        )
    return multiplier, shift


def fixed_each(factors: Iterable[float]) -> tuple[np.ndarray, np.ndarray]:
    """`fixed` of each of several factors: multipliers and shifts, int32 (K,)."""
    pairs = np.array([fixed(float(factor)) for factor in factors], np.int32).reshape(-1, 2)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])


def factor(multiplier: int, shift: int) -> float:
    """The real factor of a multiplier and a shift, exact."""
    return math.ldexp(int(multiplier), int(shift) - 31)
