"""Reciprocal: y = 1/x. With dy = ∂L/∂y, dx = −dy/x². NaN stays NaN.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = 1/x, (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = y.dtype.type(1) / x[n, e]


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = 1/x
    n, e = divmod(t, dx.shape[1])
    v = x[n, e]
    dx[n, e] = -dy[n, e] / (v * v)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = −tx/x²
