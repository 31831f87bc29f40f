"""The real numbers of whole ones: y[n,k] = scale[k]·(x[n,k] − zero). The gradient of the whole ones is scale·dy.

Dimensions: N rows (all axes before the last), K channels, M scales: one for all channels, or one for each. y is of any
float dtype.
"""

import numpy as np

from ..kernels.passes import ShapeError, declare

SHAPES = {"x": "int8|int32: N* K", "scale": "M", "y": "N* K", "dy": "N* K", "dx": "N* K"}


def derive(sizes, attrs):
    """Nothing follows; ShapeError where there is neither one scale nor one for each channel."""
    if {"K", "M"} <= sizes.keys() and sizes["M"] not in (1, sizes["K"]):
        raise ShapeError(f"scale has M={sizes['M']} entries, but x has K={sizes['K']} channels: give 1 or {sizes['K']}")
    return {}


def drawn(pick, large):
    """One scale, or one for each channel."""
    k = pick(1, 256 if large else 6)
    return {"N": pick(1, 40), "K": k, "M": (1, k)[pick(0, 1)]}, {}


@declare(SHAPES, items="N K", writes="y", derive=derive)
def forward(t, y, x, scale, zero=0):
    """Output y, (N, K), from x, (N, K), and scale, (M,)."""
    n, k = divmod(t, y.shape[1])
    y[n, k] = scale[k % scale.shape[0]] * y.dtype.type(np.int32(x[n, k]) - zero)


@declare(SHAPES, items="N K", writes="dx", derive=derive)
def grad_x(t, dx, dy, scale):
    """Gradient of x, (N, K), from dy, (N, K), and scale, (M,)."""
    # forward: y[n,k] = scale[k]·(x[n,k] − zero)
    n, k = divmod(t, dx.shape[1])
    dx[n, k] = scale[k % scale.shape[0]] * dy[n, k]
