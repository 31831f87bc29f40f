"""Real numbers as whole ones of 8 bits: y = saturated(round(x / scale) + zero, −128, 127), a half to the even one.

What is not a number becomes the largest. It has no gradient. Dimensions: N samples, E elements a sample. Any float
dtype.
"""

import numpy as np

from ..kernels.passes import declare

SHAPES = {"x": "N E*", "scale": "1", "y": "int8: N E*"}


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, scale, zero=0):
    """Output y, (N, E), from x, (N, E), and scale, (1,)."""
    n, e = divmod(t, y.shape[1])
    value = np.rint(x[n, e] / scale[0])
    most, least = x.dtype.type(127 - zero), x.dtype.type(-128 - zero)
    value = value if value < most else most
    value = value if value > least else least
    y[n, e] = np.int8(np.int32(value) + zero)
