"""A straight line on each element: y = factor·x + offset. With dy = ∂L/∂y, dx = factor·dy.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, factor=1.0, offset=0.0):
    """Output y = factor·x + offset, (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = y.dtype.type(factor) * x[n, e] + y.dtype.type(offset)


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, factor=1.0):
    """Gradient of x, (N, E): factor·dy, from dy, (N, E)."""
    # forward: y = factor·x + offset
    n, e = divmod(t, dx.shape[1])
    dx[n, e] = dx.dtype.type(factor) * dy[n, e]


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = factor·tx


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.affine(name, x, pick(-6, 6) / 4, pick(-4, 4) / 4)
