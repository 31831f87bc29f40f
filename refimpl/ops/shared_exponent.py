"""Passes of every operator on whole numbers that share an exponent: from sums of 32 bits back to numbers of 8.

    most[n] = max_e |v[n,e]|                                                                     most
    shift = max(0, bits of max_n most[n] − 7),   exponent = first + second + shift − point       settle
    q = v/2^shift rounded, within ±127                                                           narrow
    v = a·2^(a_e − e) + b·2^(b_e − e),   e = max(min(a_e, b_e), max(a_e, b_e) − 16)              common, align

How is said in `kernels.shared_exponent`. They are no operator: those of NITI bind them to their own arrays (BOUND).
Our readings: two tensors are added in the smaller one of their exponents, but at most 16 bits below the larger one;
what is below that is rounded to the nearest.
Dimensions: N samples, E elements a sample.
"""

import numpy as np

from ..kernels.passes import declare
from ..kernels.random import words
from ..kernels.requantize import clipped
from ..kernels.shared_exponent import BITS, MOST, aligned, largest, length, shifted

SHAPES = {
    "v": "int32: N E*", "most": "int32: N", "shift": "int32: 1", "exponent": "int32: 1", "first": "int32: 1",
    "second": "int32: 1", "q": "int8: N E*", "step": "int64: 1", "seed": "int64: 1", "a": "int8: N E*",
    "b": "int8: N E*", "a_exponent": "int32: 1", "b_exponent": "int32: 1", "base": "int32: 1",
}  # fmt: skip
APART = 16  # bits between the exponents of two tensors that are added, at most


@declare(SHAPES, items="N", writes="most", sums="E")
def most(t, most, v):
    """Largest magnitude of each sample, (N,), of v, (N, E)."""
    found = most.dtype.type(0)
    for e in range(v.shape[1]):
        size = abs(v[t, e])
        found = size if size > found else found
    most[t] = found


@declare(SHAPES, items="1", writes="shift exponent", sums="N")
def settle(t, shift, exponent, most, first=None, second=None, point=0):
    """Shift to 8 bits and the exponent behind it, (1,), from most, (N,), and the exponents first and second, (1,).

    arXiv 2009.13108, range by the highest bit.
    """
    bits = length(largest(most))
    right = bits - BITS if bits > BITS else 0
    total = right - point
    if first.shape[0]:
        total = total + first[0]
    if second.shape[0]:
        total = total + second[0]
    shift[0] = np.int32(right)
    exponent[0] = np.int32(total)


@declare(SHAPES, items="N E", writes="q")
def narrow(t, q, v, shift, step=None, seed=None, stochastic=False, pseudo=False, stream=0):
    """Whole numbers of 8 bits q, (N, E), from v, (N, E), and shift, (1,), rounded to the nearest unless told.

    stochastic: drawn anew in each training step, `step`, (1,), of a run from `seed`, (1,), which are needed for it.
    """
    n, e = divmod(t, q.shape[1])
    word = np.int64(0)
    if stochastic and step.shape[0] and seed.shape[0]:
        word, _ = words(seed[0], stream, step[0], t)
    q[n, e] = np.int8(clipped(shifted(np.int64(v[n, e]), shift[0], word, stochastic, pseudo), -MOST, MOST))


@declare(SHAPES, items="1", writes="base")
def common(t, base, a_exponent, b_exponent):
    """The exponent, (1,), in which tensors of a_exponent and b_exponent, (1,), are added."""
    a, b = a_exponent[0], b_exponent[0]
    lower, higher = (a, b) if a < b else (b, a)
    least = higher - APART
    base[0] = np.int32(least if lower < least else lower)


@declare(SHAPES, items="N E", writes="v")
def align(t, v, a, b, a_exponent, b_exponent, base):
    """Sum v, (N, E), of a and b, (N, E), of a_exponent and b_exponent, in the exponent base, (1,)."""
    n, e = divmod(t, v.shape[1])
    one = aligned(a[n, e], a_exponent[0], base[0])
    v[n, e] = np.int32(one + aligned(b[n, e], b_exponent[0], base[0]))
