"""Gaussian error linear unit: y = x·s, s = 1 / (1 + exp(−v)), v = √(8/π)·(x + 0.044715·x³) (arXiv 1606.08415).

With dy = ∂L/∂y:  dx = dy·(s + x·s·(1 − s)·∂v/∂x),  ∂v/∂x = √(8/π)·(1 + 3·0.044715·x²).
An operator that the library does not have: the tests add it, and it needs nothing but this file and that of its cost.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from refimpl.kernels.passes import declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"
ROOT, CUBE = math.sqrt(8 / math.pi), 0.044715
SQUARE = 3 * CUBE * ROOT


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """y (N, E) of x (N, E)."""
    n, e = divmod(t, y.shape[1])
    a = x[n, e]
    minus_v = y.dtype.type(-ROOT) * (a + y.dtype.type(CUBE) * (a * a * a))
    y[n, e] = a / (y.dtype.type(1) + math.exp(minus_v))


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x."""
    n, e = divmod(t, dx.shape[1])
    one = dx.dtype.type(1)
    a = x[n, e]
    minus_v = dx.dtype.type(-ROOT) * (a + dx.dtype.type(CUBE) * (a * a * a))
    s = one / (one + math.exp(minus_v))
    slope = dx.dtype.type(ROOT) + dx.dtype.type(SQUARE) * (a * a)
    dx[n, e] = dy[n, e] * (s + a * (s * (one - s)) * slope)


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.add_node(name, "gelu", (x,), {}, {})
