"""Of two tensors one, element by element: y = a where c > 0, else b, also where c is NaN.

With dy = ∂L/∂y, da is dy where a is taken and 0 elsewhere, db the other way. At c gradients stop.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"c": "N E*", "a": "N E*", "b": "N E*", "y": "N E*", "dy": "N E*", "da": "N E*", "db": "N E*"}
INPUTS = ("c", "a", "b")
STOPS = ("c",)


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, c, a, b):
    """Output y, (N, E), of c, a and b, (N, E)."""
    n, e = divmod(t, y.shape[1])
    one, other = a[n, e], b[n, e]  # read always: the work does not depend on the data
    y[n, e] = one if c[n, e] > c.dtype.type(0) else other


@declare(SHAPES, items="N E", writes="da")
def grad_a(t, da, dy, c):
    """Gradient of a, (N, E), from dy and c, (N, E)."""
    # forward: y = a where c > 0
    n, e = divmod(t, da.shape[1])
    value = dy[n, e]
    da[n, e] = value if c[n, e] > c.dtype.type(0) else da.dtype.type(0)


@declare(SHAPES, items="N E", writes="db")
def grad_b(t, db, dy, c):
    """Gradient of b, (N, E), from dy and c, (N, E)."""
    # forward: y = b where not c > 0
    n, e = divmod(t, db.shape[1])
    value = dy[n, e]
    db[n, e] = db.dtype.type(0) if c[n, e] > c.dtype.type(0) else value


# ty = ta where c > 0, else tb
TANGENT = (Bound(grad_a, {"da": "ty", "dy": "ta"}), Bound(grad_b, {"db": "ty", "dy": "tb"}))
