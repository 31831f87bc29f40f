"""Perturbed whole weights and their update, a run of elements at a time: the key of a stream is made once a run.

Elements of a run are drawn side by side, which the compiler makes vectors of. The bits are those of
`ops.quantized_perturbation`. What a channel has of its own, ε_q or r_q, is put beside the elements of the run first:
a scale each `count` elements in turn, so it takes no division.
"""

import numpy as np
from numba import prange

from ...compiler.executed import IADD, IMAC, IMUL, Ops, executes
from ...kernels.kernel import fast, inline
from ...kernels.random import MASK, bell, key_of, philox
from ...kernels.requantize import clipped, saturated, single, single_wide
from ...ops.quantized_perturbation import FRACTION, LARGEST
from .perturbation import ROUNDS
from .shared import stack

RUN = 1024  # elements whose sums are kept at a time
_totals, _factors = stack(RUN), stack(RUN)


def _drawn(signs, binomial) -> Ops:
    number = IADD + IMUL * 2 if binomial else IADD * 6 + IMUL
    return (ROUNDS + number + IMAC) * signs.size


def _perturbed_executes(
    moved, w, seed, draws, signs, epsilon, stream, binomial, one, z_multiplier, z_shift, unit_multiplier, unit_shift,
    low, high, wide,
) -> Ops:  # fmt: skip
    scaled = (IMUL + IADD) * (2 if wide else 1)
    return (_drawn(signs, binomial) + IMUL + IMAC + scaled) * w.size


def _stepped_executes(
    w, seed, draws, signs, rate, stream, binomial, one, z_multiplier, z_shift, low, high, mean8
) -> Ops:  # fmt: skip
    mean = IMUL + IADD if mean8 else IADD * 0
    return (_drawn(signs, binomial) + mean + IMAC + IADD) * w.size


@inline
def _draw(totals, start, n, seed, draws, signs, stream, binomial, one, z_multiplier, z_shift):
    """The sums of draws of elements start … start + n − 1."""
    for e in range(n):
        totals[e] = 0
    key = key_of(seed[0], stream)
    for j in range(draws.shape[0]):
        sign, draw = np.int64(signs[j]), draws[j] & MASK
        if binomial:
            for e in range(n):
                first, second = philox(start + e & MASK, draw, key)
                totals[e] += sign * (((first & 1) * 2 - 1) * one)
        else:
            for e in range(n):
                first, second = philox(start + e & MASK, draw, key)
                z = single(bell(first, second), z_multiplier, z_shift)
                totals[e] += sign * clipped(z, -LARGEST, LARGEST)


@inline
def _spread(factors, start, n, of):
    """The entries of `of`, (M,), of elements start … start + n − 1, in turn."""
    count = of.shape[0]
    if count == 1:
        for e in range(n):
            factors[e] = of[0]
    else:
        k = start % count
        for e in range(n):
            factors[e] = of[k]
            k = k + 1 if k + 1 < count else 0


@inline
def _perturb(
    moved, w, start, n, seed, draws, signs, epsilon, stream, binomial, one, z_multiplier, z_shift, unit_multiplier,
    unit_shift, low, high, wide,
):  # fmt: skip
    """Elements start … start + n − 1 of perturbed weights, all else as `perturbed` takes it."""
    totals, factors = _totals(np.int64(0)), _factors(np.int64(0))
    _draw(totals, start, n, seed, draws, signs, stream, binomial, one, z_multiplier, z_shift)
    _spread(factors, start, n, epsilon)
    if wide:
        for e in range(n):
            total = np.int64(w[start + e]) * one + factors[e] * totals[e]
            moved[start + e] = saturated(single_wide(total, unit_multiplier, unit_shift), low, high, moved)
    else:
        for e in range(n):
            total = np.int64(w[start + e]) * one + factors[e] * totals[e]
            moved[start + e] = saturated(single(total, unit_multiplier, unit_shift), low, high, moved)


@executes(_perturbed_executes)
@fast
def perturbed(
    moved, w, seed, draws, signs, epsilon, stream, binomial, one, z_multiplier, z_shift, unit_multiplier, unit_shift,
    low, high, wide,
):  # fmt: skip
    """Write moved, (E,), from w, (E,), as `ops.quantized_perturbation.perturb` does; a scale an element in turn."""
    elements = w.shape[0]
    for t in prange((elements + RUN - 1) // RUN):
        start = np.int64(t) * RUN
        n = min(RUN, elements - start)
        _perturb(
            moved, w, start, n, seed, draws, signs, epsilon, stream, binomial, one, z_multiplier, z_shift,
            unit_multiplier, unit_shift, low, high, wide,
        )  # fmt: skip


@inline
def _step(w, start, n, seed, draws, signs, rate, stream, binomial, one, z_multiplier, z_shift, low, high, mean8):
    """The new elements start … start + n − 1, all else as `stepped` takes it."""
    totals, factors, count = _totals(np.int64(0)), _factors(np.int64(0)), draws.shape[0]
    _draw(totals, start, n, seed, draws, signs, stream, binomial, one, z_multiplier, z_shift)
    _spread(factors, start, n, rate)
    if mean8:
        for e in range(n):
            totals[e] = clipped((2 * totals[e] + count) // (2 * count), -LARGEST, LARGEST)
    for e in range(n):
        moved = np.int64(w[start + e]) - single(totals[e], factors[e], 31 - FRACTION)
        w[start + e] = saturated(moved, low, high, w)


@executes(_stepped_executes)
@fast
def stepped(w, seed, draws, signs, rate, stream, binomial, one, z_multiplier, z_shift, low, high, mean8):
    """Write the new w, (E,), as `ops.quantized_perturbation.step` does; a scale an element in turn."""
    elements = w.shape[0]
    for t in prange((elements + RUN - 1) // RUN):
        start = np.int64(t) * RUN
        n = min(RUN, elements - start)
        _step(w, start, n, seed, draws, signs, rate, stream, binomial, one, z_multiplier, z_shift, low, high, mean8)
