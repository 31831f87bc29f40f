"""Weights beside each row of a map, the same for all samples: y[n,p,q] = (w[p,q], x[n,p,q]), or (x[n,p,q], w[p,q]).

As a transformer's class token stands before the tokens of a picture (arXiv 2010.11929 eq. (1)), where the tokens of a
sample are one row. dx is the part of dy that x became, dw[p,q] the sum over n of that which w became. Attribute
`after`: w follows x. Dimensions: N samples, P Q rows and columns, C elements of x, R of w, K = C + R of y. Any float
dtype.
"""

from ..kernels.passes import ShapeError, declare

SHAPES = {
    "x": "N P Q C", "w": "P Q R", "y": "N P Q K", "dy": "N P Q K", "dx": "N P Q C", "dw": "P Q R",
    "ty": "N P Q K", "tx": "N P Q C", "tw": "P Q R",
}  # fmt: skip
PARAMS = ("w",)
TRAINS = "behind"


def derive(sizes, attrs):
    """The letter of C, R and K that the two others tell; ShapeError where they do not fit."""
    c, r, k = (sizes.get(letter) for letter in "CRK")
    if None not in (c, r, k) and k != c + r:
        raise ShapeError(f"y has K={k}, where C + R = {c + r} is needed")
    if c is None:
        return {"C": k - r} if None not in (k, r) else {}
    if r is None:
        return {"R": k - c} if k is not None else {}
    return {"K": c + r}


def drawn(pick, large):
    """Letters that fit."""
    most = 24 if large else 4
    sizes = {letter: pick(1, most) for letter in "NPQCR"}
    return {**sizes, "K": sizes["C"] + sizes["R"]}, {"after": bool(pick(0, 1))}


@declare(SHAPES, items="N P Q K", writes="y", derive=derive)
def forward(t, y, x, w, after=False):
    """Output y, (N, P, Q, K), from x, (N, P, Q, C), and w, (P, Q, R)."""
    rest, k = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    own = k if after else k - w.shape[2]
    other = k - x.shape[3] if after else k
    y[n, p, q, k] = x[n, p, q, own] if 0 <= own < x.shape[3] else w[p, q, other]


def _of_x(sizes, attrs):
    """Which elements of a row of y are those of x."""
    start = 0 if attrs["after"] else sizes["K"] - sizes["C"]
    return [start <= k < start + sizes["C"] for k in range(sizes["K"])]


def _of_w(sizes, attrs):
    """Which elements of a row of y are those of w."""
    start = sizes["K"] - sizes["R"] if attrs["after"] else 0
    return [start <= k < start + sizes["R"] for k in range(sizes["K"])]


@declare(SHAPES, items="N P Q C", writes="dx", derive=derive)
def grad_x(t, dx, dy, after=False):
    """Gradient of x, (N, P, Q, C): its part of dy, (N, P, Q, K); C must be given."""
    # forward: y[n,p,q] = (w[p,q], x[n,p,q]), or (x[n,p,q], w[p,q])
    rest, c = divmod(t, dx.shape[3])
    rest, q = divmod(rest, dx.shape[2])
    n, p = divmod(rest, dx.shape[1])
    dx[n, p, q, c] = dy[n, p, q, c if after else dy.shape[3] - dx.shape[3] + c]


@declare(SHAPES, items="P Q R", writes="dw", derive=derive, sums="N", adds="N")
def grad_w(t, dw, dy, after=False):
    """Gradient of w, (P, Q, R): Σ_n of its part of dy, (N, P, Q, K); R must be given."""
    # forward: y[n,p,q] = (w[p,q], x[n,p,q]), or (x[n,p,q], w[p,q])
    rest, r = divmod(t, dw.shape[2])
    p, q = divmod(rest, dw.shape[1])
    k = dy.shape[3] - dw.shape[2] + r if after else r
    total = dw.dtype.type(0)
    for n in range(dy.shape[0]):
        total += dy[n, p, q, k]
    dw[p, q, r] = total


@declare(SHAPES, items="N P Q K", writes="ty", derive=derive, alike={"K": _of_x})
def tangent_x(t, ty, tx, after=False):
    """Tangent ty, (N, P, Q, K), that follows from tx, (N, P, Q, C): 0 where w is; K must be given."""
    # forward: y[n,p,q] = (w[p,q], x[n,p,q]), or (x[n,p,q], w[p,q])
    rest, k = divmod(t, ty.shape[3])
    rest, q = divmod(rest, ty.shape[2])
    n, p = divmod(rest, ty.shape[1])
    c = k if after else k - (ty.shape[3] - tx.shape[3])
    ty[n, p, q, k] = tx[n, p, q, c] if 0 <= c < tx.shape[3] else ty.dtype.type(0)


@declare(SHAPES, items="N P Q K", writes="ty", derive=derive, alike={"K": _of_w})
def tangent_w(t, ty, tw, after=False):
    """Tangent ty, (N, P, Q, K), that follows from tw, (P, Q, R): 0 where x is; N and K must be given."""
    # forward: y[n,p,q] = (w[p,q], x[n,p,q]), or (x[n,p,q], w[p,q])
    rest, k = divmod(t, ty.shape[3])
    rest, q = divmod(rest, ty.shape[2])
    p = rest % ty.shape[1]
    r = k - (ty.shape[3] - tw.shape[2]) if after else k
    ty[rest // ty.shape[1], p, q, k] = tw[p, q, r] if 0 <= r < tw.shape[2] else ty.dtype.type(0)


TANGENT = (tangent_x, tangent_w)
