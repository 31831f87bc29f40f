"""Softplus: y = log(1 + exp(x)), written as max(x, 0) + log(1 + exp(−|x|)), which does not overflow.

With dy = ∂L/∂y:  dx = dy / (1 + exp(−x)).
An operator that the library does not have: the tests add it, and it needs nothing but this file and that of its cost.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from refimpl.kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y, (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    v = x[n, e]
    y[n, e] = max(v, y.dtype.type(0)) + math.log1p(math.exp(-abs(v)))


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x."""
    n, e = divmod(t, dx.shape[1])
    dx[n, e] = dy[n, e] / (dx.dtype.type(1) + math.exp(-x[n, e]))


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx / (1 + exp(−x))


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.add_node(name, "softplus", (x,), {}, {})
