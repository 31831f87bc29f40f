"""Error function: y = erf(x). With dy = ∂L/∂y, dx = dy·2/√π·exp(−x²). NaN stays NaN.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"
HEIGHT = math.log(2 / math.sqrt(math.pi))  # in the power, for the order of a product of three is the compiler's


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = erf(x), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = math.erf(x[n, e])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = erf(x)
    n, e = divmod(t, dx.shape[1])
    v = x[n, e]
    density = math.exp(dx.dtype.type(HEIGHT) - v * v)
    dx[n, e] = dy[n, e] * density


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx·2/√π·exp(−x²)


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.error_function(name, x)
