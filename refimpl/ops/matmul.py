"""Matrix products of two tensors, one for each sample and group: y[n, g] = a[n, g] · b[n, g], or · b[n, g]ᵀ.

    y[n, g, i, k] = Σ_d a[n, g, i, d]·b[n, g, d, k]           transposed: b[n, g, k, d]
    da[n, g, i, d] = Σ_k dy[n, g, i, k]·b[n, g, d, k],  db[n, g, d, k] = Σ_i a[n, g, i, d]·dy[n, g, i, k]

Attribute `transposed`: b has its rows for the columns of y, as keys have for queries (arXiv 1706.03762 eq. (1)).
Dimensions: N samples, G groups (heads), P rows of a, D of each product, K columns of y. Any float dtype.
"""

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {
    "a": "N G P D", "b": "N G U V", "y": "N G P K", "dy": "N G P K", "da": "N G P D", "db": "N G U V",
}  # fmt: skip
INPUTS = ("a", "b")


def derive(sizes, attrs):
    """K, and D where it is of b alone; ShapeError where a and b do not fit."""
    u, v = ("K", "D") if attrs["transposed"] else ("D", "K")
    sizes = dict(sizes)
    for own, letter in (("U", u), ("V", v)):
        if own in sizes and sizes.setdefault(letter, sizes[own]) != sizes[own]:
            raise ShapeError(f"b has {own}={sizes[own]}, where {letter}={sizes[letter]} is needed")
        sizes.setdefault(own, sizes.get(letter))
    return {letter: sizes[letter] for letter in ("K", "D", "U", "V") if sizes.get(letter)}


def drawn(pick, large):
    """Letters that fit."""
    most, transposed = 24 if large else 4, bool(pick(0, 1))
    sizes = {letter: pick(1, most) for letter in "NGPDK"}
    u, v = ("K", "D") if transposed else ("D", "K")
    return {**sizes, "U": sizes[u], "V": sizes[v]}, {"transposed": transposed}


@declare(SHAPES, items="N G P K", writes="y", derive=derive)
def forward(t, y, a, b, transposed=False):
    """Output y, (N, G, P, K), from a, (N, G, P, D), and b, (N, G, D, K), or (N, G, K, D)."""
    rest, k = divmod(t, y.shape[3])
    rest, p = divmod(rest, y.shape[2])
    n, g = divmod(rest, y.shape[1])
    total = y.dtype.type(0)
    if transposed:
        for d in range(a.shape[3]):
            total += a[n, g, p, d] * b[n, g, k, d]
    else:
        for d in range(a.shape[3]):
            total += a[n, g, p, d] * b[n, g, d, k]
    y[n, g, p, k] = total


@declare(SHAPES, items="N G P D", writes="da", derive=derive)
def grad_a(t, da, dy, b, transposed=False):
    """Gradient of a, (N, G, P, D), from dy, (N, G, P, K), and b."""
    # forward: y[n, g, i, k] = Σ_d a[n, g, i, d]·b[n, g, d, k]
    rest, d = divmod(t, da.shape[3])
    rest, p = divmod(rest, da.shape[2])
    n, g = divmod(rest, da.shape[1])
    total = da.dtype.type(0)
    if transposed:
        for k in range(dy.shape[3]):
            total += dy[n, g, p, k] * b[n, g, k, d]
    else:
        for k in range(dy.shape[3]):
            total += dy[n, g, p, k] * b[n, g, d, k]
    da[n, g, p, d] = total


@declare(SHAPES, items="N G U V", writes="db", derive=derive)
def grad_b(t, db, dy, a, transposed=False):
    """Gradient of b, as it lies, from dy, (N, G, P, K), and a, (N, G, P, D)."""
    # forward: y[n, g, i, k] = Σ_d a[n, g, i, d]·b[n, g, d, k]
    rest, v = divmod(t, db.shape[3])
    rest, u = divmod(rest, db.shape[2])
    n, g = divmod(rest, db.shape[1])
    total = db.dtype.type(0)
    if transposed:
        for p in range(a.shape[2]):
            total += dy[n, g, p, u] * a[n, g, p, v]
    else:
        for p in range(a.shape[2]):
            total += dy[n, g, p, v] * a[n, g, p, u]
    db[n, g, u, v] = total


TANGENT = (Bound(forward, {"y": "ty", "a": "ta"}), Bound(forward, {"y": "ty", "b": "tb"}))  # ty = ta·b + a·tb
