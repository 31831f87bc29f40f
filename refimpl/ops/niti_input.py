"""Real numbers as whole ones of a known exponent, where they enter a net: y = x·2^(−e) rounded, within ±127.

A half is rounded to the even one; what is not a number becomes the largest. Our reading: the exponent is one for all
data, so that a sample is the same number in every mini-batch; dynamic exponents begin behind the first layer.
Dimensions: N samples, E elements a sample. Any float dtype.
"""

import numpy as np

from ..kernels.passes import declare
from ..kernels.requantize import clipped
from ..kernels.shared_exponent import MOST

SHAPES = {"x": "N E*", "exponent": "int32: 1", "y": "int8: N E*", "y_exponent": "int32: 1"}
OUTPUTS = ("y", "y_exponent")
ALIASES = {"y_exponent": "exponent"}


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, exponent):
    """Output y, (N, E), of x, (N, E), and exponent, (1,), from −62 to 62."""
    n, e = divmod(t, y.shape[1])
    up = np.int64(1) << clipped(0 - exponent[0], 0, 62)
    down = np.int64(1) << clipped(exponent[0], 0, 62)
    value = x[n, e] * x.dtype.type(up) / x.dtype.type(down)
    value = value if value < MOST else x.dtype.type(MOST)
    value = value if value > -MOST else x.dtype.type(-MOST)
    y[n, e] = np.int8(round(value))
