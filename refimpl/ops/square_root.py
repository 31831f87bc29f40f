"""Square root: y = √x. With dy = ∂L/∂y, dx = dy/(2y), without bound at 0. NaN stays NaN.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = √x, (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = math.sqrt(x[n, e])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, y):
    """Gradient of x, (N, E), from dy and y, (N, E)."""
    # forward: y = √x
    n, e = divmod(t, dx.shape[1])
    dx[n, e] = dx.dtype.type(0.5) * dy[n, e] / y[n, e]


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx/(2y)
