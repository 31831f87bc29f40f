"""Linear layer: y = x w + b.

With dy = ∂L/∂y:  dx = dy wᵀ,  dw = xᵀ dy,  db = Σₙ dy.  Along a direction:  ty = tx w + x tw + tb.
Dimensions: N rows (samples, or all axes before the last of x), D input features, K output features. Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N* D", "w": "D K", "b": "K", "y": "N* K", "dy": "N* K", "dx": "N* D", "dw": "D K", "db": "K",
    "ty": "N* K", "tb": "K",
}  # fmt: skip
PARAMS = ("w", "b")
TRAINS = "always"
BIAS = "b"
SCALES = ("w", "b")
CHANNELS = "made"


@declare(SHAPES, items="N K", writes="y", sums="D")
def forward(t, y, x, w, b=None):
    """Output y = x w + b, (N, K), from x, (N, D), w, (D, K), and b, (K,)."""
    n, k = divmod(t, y.shape[1])
    total = b[k] if b.shape[0] else y.dtype.type(0)
    for d in range(x.shape[1]):
        total += x[n, d] * w[d, k]
    y[n, k] = total


@declare(SHAPES, items="N D", writes="dx", sums="K", adds="K")
def grad_x(t, dx, dy, w):
    """Gradient of x, (N, D): dy wᵀ, from dy, (N, K), and w, (D, K)."""
    # forward: y[n,k] = b[k] + Σ_d x[n,d]·w[d,k]
    n, d = divmod(t, dx.shape[1])
    total = dx.dtype.type(0)  # a plain 0.0 would accumulate in float64
    for k in range(w.shape[1]):
        total += dy[n, k] * w[d, k]
    dx[n, d] = total


@declare(SHAPES, items="D K", writes="dw", sums="N", adds="N")
def grad_w(t, dw, dy, x):
    """Gradient of w, (D, K): xᵀ dy, from dy, (N, K), and x, (N, D)."""
    # forward: y[n,k] = b[k] + Σ_d x[n,d]·w[d,k]
    d, k = divmod(t, dw.shape[1])
    total = dw.dtype.type(0)
    for n in range(x.shape[0]):
        total += x[n, d] * dy[n, k]
    dw[d, k] = total


@declare(SHAPES, items="K", writes="db", sums="N", adds="N")
def grad_b(t, db, dy):
    """Gradient of b, (K,): Σₙ dy, from dy, (N, K)."""
    # forward: y[n,k] = b[k] + Σ_d x[n,d]·w[d,k]
    total = db.dtype.type(0)
    for n in range(dy.shape[0]):
        total += dy[n, t]
    db[t] = total


@declare(SHAPES, items="N K", writes="ty")
def tangent_b(t, ty, tb):
    """Tangent ty, (N, K), that follows from tb, (K,), alone; N must be given."""
    # forward: y[n,k] = b[k] + Σ_d x[n,d]·w[d,k]
    n, k = divmod(t, ty.shape[1])
    ty[n, k] = tb[k]


TANGENT = (  # ty = tx w + x tw + tb
    Bound(forward, {"y": "ty", "x": "tx", "b": "tb"}),
    Bound(forward, {"y": "ty", "w": "tw", "b": "tb"}),
    tangent_b,
)
