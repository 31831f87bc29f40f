"""Exponential function: y = exp(x). With dy = ∂L/∂y, dx = dy·y. NaN stays NaN.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = exp(x), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = math.exp(x[n, e])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, y):
    """Gradient of x, (N, E), from dy and y, (N, E)."""
    # forward: y = exp(x)
    n, e = divmod(t, dx.shape[1])
    dx[n, e] = dy[n, e] * y[n, e]


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx·y
