"""Natural logarithm: y = log(x). With dy = ∂L/∂y, dx = dy/x. NaN stays NaN.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = log(x), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = math.log(x[n, e])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = log(x)
    n, e = divmod(t, dx.shape[1])
    dx[n, e] = dy[n, e] / x[n, e]


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx/x
