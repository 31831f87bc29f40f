"""Each channel times a whole number of its own: y = clamp(round(multiplier·sums / 2^(31 + right)) + y_zero).

sums = (x − x_zero)·w + b, in 32 bits; x and y are of 8 bits, w of 8 or 16. An operator of the tests' own, as nets for
microcontrollers have them; it has no gradient. Its scales are for others to read. Rounded once, a half upwards.
Dimensions: N rows (all axes before the last), K channels.
"""

import numpy as np

from costmodel.formulas.cost import K, N, cmp, convert, iadd, imul, load, register, shift, store
from refimpl.kernels.passes import declare

SHAPES = {
    "x": "int8: N* K", "w": "int8|int16: K", "b": "int32: K", "x_zero": "int32: 1", "y_zero": "int32: 1",
    "w_scale": "K", "y_scale": "1", "multiplier": "int32: K", "sums": "int32: N* K", "y": "int8: N* K",
}  # fmt: skip


@declare(SHAPES, items="N K", writes="sums")
def multiply(t, sums, x, w, b, x_zero):
    """The sums, (N, K), from x, (N, K), w and b, (K,), and x_zero, (1,)."""
    n, k = divmod(t, sums.shape[1])
    sums[n, k] = (np.int32(x[n, k]) - x_zero[0]) * np.int32(w[k]) + b[k]


@declare(SHAPES, items="N K", writes="y")
def forward(t, y, sums, multiplier, y_zero, right=0):
    """Output y, (N, K), from the sums, (N, K), multiplier, (K,), and y_zero, (1,)."""
    n, k = divmod(t, y.shape[1])
    scaled = (np.int64(sums[n, k]) * multiplier[k] + (1 << (30 + right))) >> (31 + right)
    scaled += y_zero[0]
    scaled = 127 if scaled > 127 else scaled
    scaled = -128 if scaled < -128 else scaled
    y[n, k] = y.dtype.type(scaled)


register(
    "scale8",
    multiply=N * K * (4 * load + imul + 2 * iadd + store),
    forward=N * K * (3 * load + imul + 2 * iadd + shift + 2 * cmp + convert + store),
)
