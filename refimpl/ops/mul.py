"""Product of two branches, element by element: y = a·b. With dy = ∂L/∂y, da = dy·b and db = dy·a.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"a": "N E*", "b": "N E*", "y": "N E*", "dy": "N E*", "da": "N E*", "db": "N E*"}
INPUTS = ("a", "b")
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, a, b):
    """Output y, (N, E), the product of a and b, (N, E): arrays of any number of axes seen as two."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = a[n, e] * b[n, e]


@declare(SHAPES, items="N E", writes="da")
def grad_a(t, da, dy, b):
    """Gradient of a, (N, E), from dy and b, (N, E)."""
    # forward: y = a·b
    n, e = divmod(t, da.shape[1])
    da[n, e] = dy[n, e] * b[n, e]


@declare(SHAPES, items="N E", writes="db")
def grad_b(t, db, dy, a):
    """Gradient of b, (N, E), from dy and a, (N, E)."""
    # forward: y = a·b
    n, e = divmod(t, db.shape[1])
    db[n, e] = dy[n, e] * a[n, e]


TANGENT = (Bound(forward, {"y": "ty", "a": "ta"}), Bound(forward, {"y": "ty", "b": "tb"}))  # ty = ta·b + a·tb
