"""Hyperbolic tangent: y = tanh(x). With dy = ∂L/∂y, dx = dy·(1 − y²). NaN stays NaN.

What backward keeps is y.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = tanh(x), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = math.tanh(x[n, e])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, y):
    """Gradient of x, (N, E), from dy and y, (N, E)."""
    # forward: y = tanh(x)
    n, e = divmod(t, dx.shape[1])
    v = y[n, e]
    dx[n, e] = dy[n, e] * (dx.dtype.type(1) - v * v)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx·(1 − y²)


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.tanh(name, x)
