"""Times one whole weight, whose exponent may change: y = x·w·2^(e + w_exponent), x of 8 bits with the exponent e.

The weight is updated in whole numbers, w ← w − round(lr·dw), and its exponent grows while w is at its end:
so that is state (as in NITI, Wang et al. 2020). The arithmetic is the tests' own.
Dimensions: N samples, E elements a sample.
"""

import numpy as np

from costmodel.formulas.cost import E, N, add, cmp, convert, iadd, imul, load, mul, register, shift, store
from refimpl.kernels.passes import declare

SHAPES = {
    "x": "int8: N E*", "e": "int32: 1", "w": "int8: 1", "w_exponent": "int32: 1", "y": "N E*",
    "dy": "N E*", "dw": "1", "lr": "1",
}  # fmt: skip
INPUTS = ("x", "e")
PARAMS = ("w",)
STATE = ("w_exponent",)
TRAINS = "always"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, e, w, w_exponent):
    """Output y, (N, E), from x, (N, E), e, w and w_exponent, (1,)."""
    n, i = divmod(t, y.shape[1])
    y[n, i] = y.dtype.type((np.int32(x[n, i]) * np.int32(w[0])) << (e[0] + w_exponent[0]))


@declare(SHAPES, items="1", writes="dw", sums="N E")
def grad_w(t, dw, dy, x, e, w_exponent):
    """Gradient of w, (1,), from dy and x, (N, E), e and w_exponent, (1,)."""
    total = dw.dtype.type(0)
    for n in range(x.shape[0]):
        for i in range(x.shape[1]):
            total += dy[n, i] * dw.dtype.type(np.int32(x[n, i]) << (e[0] + w_exponent[0]))
    dw[0] = total


@declare(SHAPES, items="1", writes="w", inplace="w")
def step(t, w, dw, lr):
    """New w, (1,), from the old one, dw and lr, (1,)."""
    moved = np.int32(w[0]) - np.int32(np.rint(lr[0] * dw[0]))
    w[0] = np.int8(max(min(moved, 127), -127))


@declare(SHAPES, items="1", writes="w_exponent", inplace="w_exponent")
def grow(t, w_exponent, w):
    """New w_exponent, (1,), from the old one and w, (1,)."""
    w_exponent[0] = w_exponent[0] + (1 if abs(w[0]) > 126 else 0)


register(
    "weigh8",
    forward=N * E * (4 * load + imul + iadd + shift + convert + store),
    grad_w=N * E * (4 * load + iadd + shift + convert + mul + add) + store,
    step=3 * load + mul + 2 * convert + iadd + 2 * cmp + convert + store,
    grow=2 * load + 2 * cmp + iadd + store,
)
