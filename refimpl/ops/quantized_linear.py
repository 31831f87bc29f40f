"""Linear layer in whole numbers: int8 rows, int8 or int16 weights, sums in int32, requantized to int8 or left so.

    sums[n,k] = b[k] + Σ_d (x[n,d] − x_zero)·w[d,k]
    y[n,k] = saturated(requantized(sums[n,k], multiplier[k], shift[k]) + y_zero, low, high)

as TensorFlow Lite's FULLY_CONNECTED; scales as in `quantized_conv2d`. The sums, which are of the scale
x_scale·w_scale[k], are a second output: logits are left in 32 bits and made real numbers for the loss. Where a net
reads them alone, no y is computed. It has no gradient.
Dimensions: N rows (samples, or all axes before the last of x), D input features, K output features.
"""

import numpy as np

from ..kernels.kernel import helper
from ..kernels.passes import declare
from ..kernels.requantize import requantized, saturated

SHAPES = {
    "x": "int8: N* D", "w": "int8|int16: D K", "b": "int32: K", "multiplier": "int32: K", "shift": "int32: K",
    "y": "int8: N* K", "sums": "int32: N* K",
}  # fmt: skip
OUTPUTS = ("y", "sums")
PARAMS = ("w", "b")
TRAINS = "always"
BIAS = "b"


@helper
def sum_of_products(n, k, x, w, b, x_zero):
    """The sum of an output."""
    total = b[k] if b.shape[0] else np.int32(0)
    for d in range(x.shape[1]):
        value = np.int32(x[n, d])
        if x_zero != 0:
            value = value - x_zero
        total += value * np.int32(w[d, k])
    return total


@declare(SHAPES, items="N K", writes="y", sums="D")
def forward(t, y, x, w, multiplier, shift, b=None, x_zero=0, y_zero=0, low=-128, high=127, twice=False):
    """Output y, (N, K), from x, (N, D), w, (D, K), multiplier, shift and b, (K,)."""
    n, k = divmod(t, y.shape[1])
    total = sum_of_products(n, k, x, w, b, x_zero)
    scaled = requantized(total, multiplier[k], shift[k], twice) + y_zero
    y[n, k] = y.dtype.type(saturated(scaled, low, high))


@declare(SHAPES, items="N K", writes="sums", sums="D")
def accumulate(t, sums, x, w, b=None, x_zero=0):
    """The sums, (N, K), from x, (N, D), w, (D, K), and b, (K,)."""
    n, k = divmod(t, sums.shape[1])
    sums[n, k] = sum_of_products(n, k, x, w, b, x_zero)
