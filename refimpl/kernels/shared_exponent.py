"""Whole numbers of 8 bits that share an exponent: a tensor q stands for q·2^e, e one number for all of it.

A sum of products is a whole number of 32 bits; the highest bit of the largest one says by how many bits all are shifted
to the right, so that they fit into 7 bits and a sign again, and e grows by that:

    b = the bits of max|v|, the least b with max|v| < 2^b                length
    s = max(0, b − 7),   q = v/2^s rounded,   e_q = e_v + s              shifted

Rounding of a magnitude |v| whose low s bits are l: up, away from zero, where

    nearest      2·l ≥ 2^s
    stochastic   the low s bits of a random word lie below l: with the probability l/2^s
    pseudo       the higher ⌈s/2⌉ bits of l are more than its lower ⌊s/2⌋, which stand for a random number: nothing is
                 drawn. They are as long as the higher ones with a 0 behind them where s is odd.

|q| = 128, from a rounding up at the end, becomes 127. Of a tensor of zeros s is 0.
Wang et al. 2020 (NITI, arXiv 2009.13108). [second-hand] the shared exponent, the range by the highest bit, the three
roundings, and that the low bits decide in the third; from its author's public code: which bits of it are compared.
[ours] signs apart from magnitudes, saturation, and the exponent of zeros.
"""

import numpy as np

from .kernel import helper
from .passes import ShapeError
from .requantize import clipped

BITS, MOST = 7, 127  # of a magnitude; the largest
LIMIT = 1 << 30  # of what is added to a sum before its products
SUM_END = 2**31 - 1
LONGEST = 31  # bits of a magnitude, and of a shift
ROUNDINGS = {  # word → what the passes are told
    "nearest": {"stochastic": False, "pseudo": False},
    "stochastic": {"stochastic": True, "pseudo": False},
    "pseudo-stochastic": {"stochastic": False, "pseudo": True},
}


def check_terms(terms: int, summed: str, added: int = 0) -> None:
    """ShapeError where a sum of so many products of 8 bits, and of `added`, may leave 32, with the most that does not.

    summed: what the sum runs over.
    """
    most = (SUM_END - added) // MOST**2
    if terms > most:
        raise ShapeError(
            f"a sum of {terms} products of whole numbers up to {MOST} may overflow 32 bits: {summed} must be at most "
            f"{most}"
        )


@helper
def length(value):
    """The bits of a whole number from 0 to 2^31 − 1; the same work whatever it is."""
    found = 0
    for bit in range(31):
        found += 1 if (value >> bit) > 0 else 0
    return found


@helper
def largest(most):
    """The largest of some whole numbers from 0 up."""
    found = most[0]
    for n in range(1, most.shape[0]):
        value = most[n]
        found = value if value > found else found
    return found


@helper
def shifted(value, shift, word, stochastic, pseudo):
    """An int64 value/2^shift, rounded; shift: from 0 to 31. word: a random one of 32 bits, where `stochastic`.

    arXiv 2009.13108, pseudo-stochastic rounding where `pseudo`.
    """
    size = abs(value)
    low = size & ((np.int64(1) << shift) - 1)
    whole = size >> shift
    if stochastic:
        up = (word & ((np.int64(1) << shift) - 1)) < low
    elif pseudo:
        half = shift >> 1
        up = (low >> half) > ((low & ((np.int64(1) << half) - 1)) << (shift & 1))
    else:
        up = low > (((np.int64(1) << shift) - 1) >> 1)
    whole = whole + (1 if up else 0)
    below = -whole
    return below if value < 0 else whole


@helper
def aligned(value, exponent, wanted):
    """The whole number of 2^wanted nearest to value·2^exponent, an int64, cut off at ±2^30."""
    left = clipped(exponent - wanted, 0, 31)
    right = clipped(wanted - exponent, 0, 31)
    return clipped(shifted(np.int64(value) << left, right, 0, False, False), -1073741824, 1073741824)
