"""Update of whole weights that share an exponent: w ← w − dw/2^s rounded, s such that it has few bits.

    s = max(0, min(31, bits of max|dw| − rate_bits)),    w ← w − dw/2^s rounded, within ±end

so that the largest change is about 2^rate_bits. The exponent of w stays. Rounding as in `kernels.shared_exponent`.
Wang et al. 2020 (NITI, arXiv 2009.13108). [second-hand] the gradient is shifted to few bits, whatever its exponent.
[ours] rate_bits may be below 0: then even the largest gradient moves its weight only now and then, by rounding.
Dimensions: E elements of a parameter of any shape, N rows of one.
"""

import numpy as np

from ..kernels.passes import declare
from ..kernels.random import words
from ..kernels.requantize import clipped
from ..kernels.shared_exponent import LONGEST, MOST, largest, length, shifted

SHAPES = {
    "w": "int8|int16: E*", "dw": "int32: E*", "most": "int32: N", "rate_bits": "int32: 1", "shift": "int32: 1",
    "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip


@declare(SHAPES, items="1", writes="shift", sums="N")
def shift_of(t, shift, most, rate_bits):
    """Shift, (1,), of a gradient whose rows have the largest magnitudes most, (N,), for rate_bits, (1,)."""
    shift[0] = np.int32(clipped(length(largest(most)) - rate_bits[0], 0, LONGEST))


@declare(SHAPES, items="E", writes="w", inplace="w")
def change(t, w, dw, shift, step, seed, stochastic=False, pseudo=False, stream=0, end=MOST):
    """New w, (E,), from the old one, dw, (E,), and shift, (1,); step and seed, (1,), for random words.

    arXiv 2009.13108, integer update.
    """
    word = np.int64(0)
    if stochastic:
        word, _ = words(seed[0], stream, step[0], t)
    moved = np.int64(w[t]) - shifted(np.int64(dw[t]), shift[0], word, stochastic, pseudo)
    w[t] = w.dtype.type(clipped(moved, -end, end))
