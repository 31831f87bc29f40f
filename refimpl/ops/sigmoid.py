"""Logistic function: y = 1 / (1 + exp(−x)). With dy = ∂L/∂y, dx = dy·y·(1 − y). NaN stays NaN.

What backward keeps is y: who reads it, as a product does, keeps it too.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.logistic import logistic
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = 1 / (1 + exp(−x)), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = logistic(x[n, e], y.dtype.type(1))


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, y):
    """Gradient of x, (N, E), from dy and y, (N, E)."""
    # forward: y = 1 / (1 + exp(−x))
    n, e = divmod(t, dx.shape[1])
    v, g = y[n, e], dy[n, e]
    dx[n, e] = v * (g - g * v)  # no product of three: its order, and so its rounding, would be the compiler's choice


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx·y·(1 − y)


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.sigmoid(name, x)
