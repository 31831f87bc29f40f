"""2-D convolution in whole numbers: int8 maps, int8 or int16 weights, sums in int32, requantized to int8.

    sum = b[k] + Σ_{r,s,c} (x[n, p·stride − top + r·dilation, …, g·C/G + c] − x_zero)·w[r,s,c,k]
    y[n,p,q,k] = saturated(requantized(sum, multiplier[k], shift[k]) + y_zero, low, high)

with taps and groups as in `conv2d`. The padding is the zero point, so a tap outside the map adds nothing and is
skipped. In real numbers x is x_scale·(x − x_zero), the weights are w_scale[k]·w, the bias is x_scale·w_scale[k]·b, and
multiplier and shift stand for x_scale·w_scale[k]/y_scale (`kernels.requantize`), rounded once or `twice`. A rectifier
is saturation: `low` is y_zero, and for ReLU6 `high` is what stands for 6. A sum must fit into int32: `surgery.quantize`
refuses a net of which one might not. It has no gradient.

The equations and the choice of (multiplier, shift) are those of TensorFlow Lite's CONV_2D and DEPTHWISE_CONV_2D, whose
weights are of 8 bits here; weights of 16 bits beside maps of 8 are those of arXiv 2411.04036 eq. (10). MCUNet's code
(arXiv 2206.15472) rounds sum·scale in floating point; the whole numbers in its place are our reading.
Dimensions: N samples, H W input rows and columns, C input channels, K output channels, R S kernel rows and columns,
P Q output rows and columns, G groups (G = C is depthwise).
"""

import numpy as np

from ..kernels.geometry import CONV_OUT, conv_derive
from ..kernels.passes import declare
from ..kernels.requantize import requantized, saturated

SHAPES = {
    "x": "int8: N H W C", "w": "int8|int16: R S C/G K", "b": "int32: K", "multiplier": "int32: K", "shift": "int32: K",
    "y": "int8: N P Q K",
}  # fmt: skip
PARAMS = ("w", "b")
TRAINS = "counted"
BIAS = "b"


@declare(SHAPES, items="N P Q K", writes="y", derive=conv_derive, alike=CONV_OUT, sums="C/G")
def forward(
    t, y, x, w, multiplier, shift, b=None, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0)),
    x_zero=0, y_zero=0, low=-128, high=127, twice=False,
):  # fmt: skip
    """Output y, (N, P, Q, K), from x, (N, H, W, C), w, (R, S, C/G, K), multiplier, shift and b, (K,)."""
    rest, k = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    depth = w.shape[2]
    first = k // (w.shape[3] * depth // x.shape[3]) * depth  # first input channel of k's group
    total = b[k] if b.shape[0] else np.int32(0)
    for r in range(w.shape[0]):
        h = p * stride[0] - pad[0][0] + r * dilation[0]
        if 0 <= h < x.shape[1]:
            for s in range(w.shape[1]):
                col = q * stride[1] - pad[1][0] + s * dilation[1]
                if 0 <= col < x.shape[2]:
                    for c in range(depth):
                        value = np.int32(x[n, h, col, first + c])
                        if x_zero != 0:
                            value = value - x_zero
                        total += value * np.int32(w[r, s, c, k])
    scaled = requantized(total, multiplier[k], shift[k], twice) + y_zero
    y[n, p, q, k] = y.dtype.type(saturated(scaled, low, high))
