"""Absolute value: y = |x|. With dy = ∂L/∂y, dx = dy where x > 0, −dy where x < 0, else 0.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = |x|, (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = abs(x[n, e])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = |x|
    n, e = divmod(t, dx.shape[1])
    v, g = x[n, e], dy[n, e]
    other = -g
    below = other if v < 0 else dx.dtype.type(0)
    dx[n, e] = g if v > 0 else below


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = ±tx


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.absolute_value(name, x)
