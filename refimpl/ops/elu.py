"""Exponential linear unit: y = x where x > 0, else alpha·(exp(x) − 1) (arXiv 1511.07289). NaN stays NaN.

With dy = ∂L/∂y:  dx = dy where x > 0, else dy·alpha·exp(x), which is dy·(y + alpha).
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


def derive(sizes, attrs):
    """Nothing follows; ShapeError where the sign of y would not tell that of x."""
    if "alpha" in attrs and attrs["alpha"] < 0:
        raise ShapeError(f"alpha must be at least 0, got {attrs['alpha']}")
    return {}


@declare(SHAPES, items="N E", writes="y", derive=derive)
def forward(t, y, x, alpha=1.0):
    """Output y, (N, E): x, (N, E), where it is above 0, else alpha·(exp(x) − 1)."""
    n, e = divmod(t, y.shape[1])
    v = x[n, e]
    curved = v <= 0
    below = y.dtype.type(alpha) * math.expm1(v if curved else y.dtype.type(0))
    y[n, e] = below if curved else v


@declare(SHAPES, items="N E", writes="dx", derive=derive)
def grad_x(t, dx, dy, y, alpha=1.0):
    """Gradient of x, (N, E), from dy and y, (N, E)."""
    # forward: y = x where x > 0, else alpha·(exp(x) − 1)
    n, e = divmod(t, dx.shape[1])
    v = y[n, e]
    below = v + dx.dtype.type(alpha)  # no product of three: its order, and so its rounding, would be the compiler's
    dx[n, e] = dy[n, e] * (below if v <= 0 else dx.dtype.type(1))


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx where x > 0, else tx·(y + alpha)


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.elu(name, x, pick(1, 6) / 4)
