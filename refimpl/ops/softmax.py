"""Softmax of each row: y[n, c] = exp(x[n, c] − max_c x) / Σ_c exp(x[n, c] − max_c x).

With dy = ∂L/∂y:  dx[n, c] = y[n, c]·(dy[n, c] − along[n]), along[n] = Σ_c dy[n, c]·y[n, c]. The derivative is
symmetric, so that along a direction ty is the same of tx.
Dimensions: N rows (all axes before the last), C elements of a row. Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N* C", "largest": "N*", "total": "N*", "y": "N* C", "dy": "N* C", "along": "N*", "dx": "N* C",
}  # fmt: skip


@declare(SHAPES, items="N", writes="largest total")
def scales(t, largest, total, x):
    """The largest element of each row and the sum of exp(x − largest), (N,), of x, (N, C)."""
    top, summed = x[t, 0], x.dtype.type(0)
    for c in range(x.shape[1]):
        value = x[t, c]
        top = value if value > top else top
    for c in range(x.shape[1]):
        summed += math.exp(x[t, c] - top)
    largest[t] = top
    total[t] = summed


@declare(SHAPES, items="N C", writes="y")
def forward(t, y, x, largest, total):
    """Output y, (N, C), from x, (N, C), largest and total, (N,)."""
    n, c = divmod(t, y.shape[1])
    y[n, c] = math.exp(x[n, c] - largest[n]) / total[n]


@declare(SHAPES, items="N", writes="along")
def projection(t, along, dy, y):
    """along = Σ_c dy·y of each row, (N,), from dy and y, (N, C)."""
    summed = y.dtype.type(0)
    for c in range(y.shape[1]):
        summed += dy[t, c] * y[t, c]
    along[t] = summed


@declare(SHAPES, items="N C", writes="dx")
def grad_x(t, dx, dy, y, along):
    """Gradient of x, (N, C): y·(dy − along), from dy and y, (N, C), and along, (N,)."""
    # forward: y = exp(x) / Σ_c exp(x)
    n, c = divmod(t, dx.shape[1])
    dx[n, c] = y[n, c] * (dy[n, c] - along[n])


TANGENT = (  # ty = y·(tx − Σ_c tx·y)
    Bound(projection, {"along": "talong", "dy": "tx"}),
    Bound(grad_x, {"dx": "ty", "dy": "tx", "along": "talong"}),
)


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.softmax(name, x)
