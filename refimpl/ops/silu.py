"""Sigmoid linear unit, swish: y = x·s, s = 1 / (1 + exp(−x)) (arXiv 1702.03118). NaN stays NaN.

With dy = ∂L/∂y:  dx = dy·(s + x·s·(1 − s)),  s·(1 − s) = exp(−|x|) / (1 + exp(−|x|))².
What backward keeps is x: y falls and then rises, so two values of x have the same one.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.logistic import logistic
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = x / (1 + exp(−x)), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    v = x[n, e]
    y[n, e] = v * logistic(v, y.dtype.type(1))


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = x·s, s = 1 / (1 + exp(−x))
    n, e = divmod(t, dx.shape[1])
    one = dx.dtype.type(1)
    v = x[n, e]
    power = math.exp(-abs(v))
    whole = one + power
    s = (one if v >= 0 else power) / whole
    dx[n, e] = dy[n, e] * (s + v * (power / (whole * whole)))


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx·(s + x·s·(1 − s))


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.silu(name, x)
