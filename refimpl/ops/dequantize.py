"""The real numbers of whole ones: y[n,k] = scale[k]·(x[n,k] − zero), a scale for each channel. It has no gradient.

Dimensions: N rows (all axes before the last), K channels. y is of any float dtype.
"""

import numpy as np

from ..kernels.passes import declare

SHAPES = {"x": "int8|int32: N* K", "scale": "K", "y": "N* K"}


@declare(SHAPES, items="N K", writes="y")
def forward(t, y, x, scale, zero=0):
    """Output y, (N, K), from x, (N, K), and scale, (K,)."""
    n, k = divmod(t, y.shape[1])
    y[n, k] = scale[k] * y.dtype.type(np.int32(x[n, k]) - zero)
