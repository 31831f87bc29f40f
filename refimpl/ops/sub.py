"""Difference of two branches: y = a − b. With dy = ∂L/∂y, db = −dy; da is dy itself, so no kernel runs for it.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"a": "N E*", "b": "N E*", "y": "N E*", "dy": "N E*", "da": "N E*", "db": "N E*"}
INPUTS = ("a", "b")
ALIASES = {"da": "dy"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, a, b):
    """Output y, (N, E), the difference of a and b, (N, E): arrays of any number of axes seen as two."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = a[n, e] - b[n, e]


@declare(SHAPES, items="N E", writes="db")
def grad_b(t, db, dy):
    """Gradient of b, (N, E): −dy, from dy, (N, E)."""
    # forward: y = a − b
    n, e = divmod(t, db.shape[1])
    db[n, e] = -dy[n, e]


TANGENT = ("ta", Bound(grad_b, {"db": "ty", "dy": "tb"}))  # ty = ta − tb
