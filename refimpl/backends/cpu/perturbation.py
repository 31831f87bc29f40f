"""Sums of draws in float32, a run of elements at a time: the key of a stream is made once a run, and not at each draw.

Elements of a run are drawn side by side, which the compiler makes vectors of. The bits are those of `ops.perturbation`:
a draw is rounded to float32, products and sums are float64, draws are added in their order.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, IADD, IMUL, MAC, MUL, Ops, executes
from ...kernels.kernel import fast, inline
from ...kernels.random import MASK, bell, key_of, philox
from ...ops.perturbation import UNIT
from .shared import stack

RUN = 1024  # elements whose sums are kept at a time
ROUNDS = IMUL * 9  # of a draw: the first of ten multiplies a place, and the key goes on in plain numbers
_totals = stack(RUN)


def _executes(out, w, seed, draws, coefficients, scales, least, step, stream, signs, chosen, adds) -> Ops:
    number = IMUL + IADD if signs else IADD * 5 + MUL
    by_chance = step.size and not least.size
    drawn = (ROUNDS + number + MAC) * draws.size + ROUNDS * by_chance + ADD * bool(adds)
    return drawn * w.size + MUL * (scales.size + by_chance) * -(-w.size // RUN)


@inline
def _run(out, w, start, n, seed, draws, coefficients, scales, least, step, stream, signs, chosen, adds):
    """Elements start … start + n − 1 of the sums, all else as `summed` takes it."""
    totals, kind = _totals(np.float64(0)), w.dtype.type
    for e in range(n):
        totals[e] = 0.0
    key = key_of(seed[0], stream)
    for j in range(draws.shape[0]):
        c, draw = coefficients[j], draws[j] & MASK
        if j < scales.shape[0]:
            c = c * scales[j]
        factor = np.float64(c)
        if signs:
            for e in range(n):
                first, second = philox(start + e & MASK, draw, key)
                totals[e] += factor * np.float64((first & 1) * 2 - 1)
        else:
            for e in range(n):
                first, second = philox(start + e & MASK, draw, key)
                totals[e] += factor * np.float64(kind(bell(first, second)) * kind(UNIT))
    if least.shape[0]:
        for e in range(n):
            totals[e] = totals[e] if abs(w[start + e]) >= least[0] else 0.0
    elif step.shape[0]:
        key, draw, most = key_of(seed[0], stream + 2), step[0] & MASK, chosen * kind(16777216)
        for e in range(n):
            first, second = philox(start + e & MASK, draw, key)
            totals[e] = totals[e] if kind(first >> 8) < most else 0.0
    for e in range(n):
        out[start + e] = np.float64(w[start + e]) + totals[e] if adds else totals[e]


@executes(_executes)
@fast
def summed(out, w, seed, draws, coefficients, scales, least, step, stream, signs, chosen, adds):
    """Sums of draws out, (E,), float32, of weights w, (E,), `adds`: on top of w; else as `ops.perturbation` takes them.

    draws (J,) and coefficients (J,); scales (M,), least (1,) and step (1,) are empty where they are not given.
    """
    elements = w.shape[0]
    for t in prange((elements + RUN - 1) // RUN):
        start = np.int64(t) * RUN
        n = min(RUN, elements - start)
        _run(out, w, start, n, seed, draws, coefficients, scales, least, step, stream, signs, chosen, adds)
