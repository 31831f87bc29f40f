"""The larger and the smaller of two arrays, element by element: an operator of two outputs, for the tests."""

from refimpl.kernels.passes import declare

SHAPES = {
    "a": "N E*", "b": "N E*", "y": "N E*", "z": "N E*", "dy": "N E*", "dz": "N E*", "da": "N E*", "db": "N E*",
    "ta": "N E*", "tb": "N E*", "ty": "N E*", "tz": "N E*",
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


@declare(SHAPES, items="N E", writes="ty tz")
def tangent(t, ty, tz, a, b, ta=None, tb=None):
    """Tangents of y and z: those of the larger and of the smaller; one that is not given is zero."""
    n, e = divmod(t, ty.shape[1])
    u = ta[n, e] if ta.shape[0] else ty.dtype.type(0)
    v = tb[n, e] if tb.shape[0] else ty.dtype.type(0)
    first = a[n, e] > b[n, e]
    ty[n, e] = u if first else v
    tz[n, e] = v if first else u


TANGENT = (tangent,)
