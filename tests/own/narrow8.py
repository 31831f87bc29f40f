"""Whole numbers of 32 bits as some of 8 and one exponent that they share, found anew by each step: y·2^e ≈ x.

e is the least number of bits to be dropped after which the largest |x| is at most 127 (as in NITI, Wang et al. 2020).
An operator of the tests' own; it has no gradient. Dimensions: N samples, E elements a sample.
"""

import numpy as np

from costmodel.formulas.cost import E, N, cmp, convert, iadd, load, register, shift, store
from refimpl.kernels.passes import declare

SHAPES = {"x": "int32: N E*", "y": "int8: N E*", "e": "int32: 1"}
OUTPUTS = ("y", "e")
BITS = 24  # most that are dropped


@declare(SHAPES, items="1", writes="e", sums="N E")
def exponent(t, e, x):
    """The exponent e, (1,), of x, (N, E)."""
    most = np.int32(0)
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            most = max(abs(x[n, i]), most)
    bits = 0
    for _ in range(BITS):
        bits = bits + 1 if most >> bits > 127 else bits
    e[0] = bits


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, e):
    """Output y, (N, E), from x, (N, E), and e, (1,), a half upwards."""
    n, i = divmod(t, y.shape[1])
    y[n, i] = np.int8(min((x[n, i] + (1 << e[0] >> 1)) >> e[0], 127))


register(
    "narrow8",
    exponent=N * E * (load + 2 * cmp) + BITS * (shift + cmp) + store,
    forward=N * E * (3 * load + 3 * shift + iadd + cmp + convert + store),
)
