"""Softsign: y = x/(1 + |x|). With dy = ∂L/∂y, dx = dy/(1 + |x|)². NaN stays NaN.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = x/(1 + |x|), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    v = x[n, e]
    y[n, e] = v / (y.dtype.type(1) + abs(v))


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = x/(1 + |x|)
    n, e = divmod(t, dx.shape[1])
    root = dx.dtype.type(1) + abs(x[n, e])
    dx[n, e] = dy[n, e] / (root * root)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx/(1 + |x|)²


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.softsign(name, x)
