"""Smooth rectifier: y = log(1 + exp(x)). With dy = ∂L/∂y, dx = dy/(1 + exp(−x)). NaN stays NaN.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.logistic import logistic
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = log(1 + exp(x)), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    v = x[n, e]
    zero = y.dtype.type(0)
    y[n, e] = (v if v > zero else zero) + math.log1p(math.exp(-abs(v)))


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = log(1 + exp(x))
    n, e = divmod(t, dx.shape[1])
    dx[n, e] = dy[n, e] * logistic(x[n, e], dx.dtype.type(1))


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx/(1 + exp(−x))


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.smooth_relu(name, x)
