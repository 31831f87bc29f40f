"""The larger and the smaller of two arrays, element by element: an operator of two outputs, for the tests."""

from refimpl.kernels.passes import declare

SHAPES = {
    "a": "N E*", "b": "N E*", "y": "N E*", "z": "N E*", "dy": "N E*", "dz": "N E*", "da": "N E*", "db": "N E*",
}  # fmt: skip
INPUTS = ("a", "b")
OUTPUTS = ("y", "z")


@declare(SHAPES, items="N E", writes="y z")
def forward(t, y, z, a, b):
    """y = max(a, b) and z = min(a, b)."""
    n, e = divmod(t, y.shape[1])
    u, v = a[n, e], b[n, e]
    y[n, e] = u if u > v else v
    z[n, e] = v if u > v else u


@declare(SHAPES, items="N E", writes="da db")
def grad(t, da, db, a, b, dy=None, dz=None):
    """Gradients of a and b: dy goes to the larger, dz to the smaller; one that is not given is zero."""
    n, e = divmod(t, da.shape[1])
    larger = dy[n, e] if dy.shape[0] else da.dtype.type(0)
    smaller = dz[n, e] if dz.shape[0] else da.dtype.type(0)
    first = a[n, e] > b[n, e]
    da[n, e] = larger if first else smaller
    db[n, e] = smaller if first else larger
