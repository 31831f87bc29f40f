"""Floats rounded to whole numbers of few bits, by a scale, to the nearest or at random, in the bodies of passes.

Dimensions: those of the passes that use it.
"""

import numpy as np

from .kernel import helper
from .passes import ShapeError

LEVELS = 127  # the largest whole number of 8 bits; the smallest is its negative
SUM_END = 2**31 - 1  # of a sum of 32 bits
WORDS = 2.0**32  # words that a draw may be


def fits(terms: int, levels: int, summed: str) -> dict[str, int]:
    """Nothing follows; ShapeError where a sum of so many products may leave 32 bits, with the most that do not.

    levels: the largest whole number of the one factor, that of the other is LEVELS. summed: what the sum runs over.
    """
    most = SUM_END // (LEVELS * levels)
    if terms > most:
        raise ShapeError(
            f"a sum of {terms} products of whole numbers up to {LEVELS} and {levels} may overflow 32 bits: {summed} "
            f"must be at most {most}"
        )
    return {}


@helper
def larger(a, b):
    """The larger of two floats, and what is no number where one is none."""
    return a if (b <= a) | (a != a) else b  # noqa: PLR0124 - true of what is no number


@helper
def scale_of(most, levels, zero, one):
    """The scale by which `most` becomes the whole number `levels`; one where it would be zero."""
    found = most / levels
    return one if found == zero else found


@helper
def floor(value, cut, back):
    """The largest whole number up to `value`, from it cut towards zero, and that as a float again."""
    return cut - (1 if value < back else 0)


@helper
def stochastic_round(low, share, word, words):
    """The whole number low + 1 for a share of the words 0 … 2^32 − 1, 0 ≤ share ≤ 1, else low.

    words: 2^32, a float of the width of share. The probability is ⌊share·2^32⌋ / 2^32.
    """
    return low + (1 if word < np.int64(share * words) else 0)


@helper
def clip(number, least, most):
    """A whole number moved into least … most."""
    number = number if number < most else most
    return number if number > least else least


@helper
def rounded_at_random(value, scale, draw, words, like):
    """value / scale, up to ±LEVELS, as the whole number above it for its share of the draws, else the one below.

    words: 2^32, a float of the width of value; like: an array of its dtype.
    """
    ratio = value / scale
    cut = np.int64(ratio)
    low = floor(ratio, cut, like.dtype.type(cut))
    return clip(stochastic_round(low, ratio - like.dtype.type(low), draw, words), -LEVELS, LEVELS)


@helper
def passes_bit(mask, n, e):
    """The bit of element e of sample n in mask, (N, B)."""
    return (mask[n, e >> 3] >> (e & 7)) & 1


@helper
def inner(value, low, high):
    """Is a whole number between the ends at which it is saturated? Then its gradient passes."""
    return (value > low) & (value < high)


@helper
def slope_of(multiplier, shift):
    """The factor of requantization that attributes state, multiplier·2^(shift − 31)."""
    return multiplier * 2.0 ** (shift - 31)


@helper
def stepped(w, gradient, lr, scale, draw, words, scaled, weight_decay, most, like, whole):
    """A whole number w after a step: less lr·(gradient/scale + weight_decay·w), rounded at random, up to ±most.

    gradient: of the real number scale·w; where not `scaled`, lr·(gradient·scale + weight_decay·w) is taken. like: an
    array of the gradient's dtype, whole: one of w's.
    """
    of_whole = gradient / scale if scaled else gradient * scale
    move = lr * (of_whole + weight_decay * like.dtype.type(w))
    end = like.dtype.type(WORDS)  # beyond it w is at its end anyway, and a whole number of 64 bits holds it
    move = move if move < end else end
    move = move if move > -end else -end
    cut = np.int64(move)
    low = floor(move, cut, like.dtype.type(cut))
    moved = np.int64(w) - stochastic_round(low, move - like.dtype.type(low), draw, words)
    return clip(moved, np.int64(whole.dtype.type(-most)), np.int64(whole.dtype.type(most)))
