"""The largest elements of each row in their order: y[n, k] = x[n, c] where rank[n, c] = k, for k below `count`.

The rank of an element is how many come before it: those that are larger, or with `smallest` smaller, and equal ones
that stand before. With dy = ∂L/∂y, dx[n, c] is dy[n, rank[n, c]], and 0 where the rank is none of y's.
Dimensions: N rows (all axes before the last), C elements of a row, K of those that are taken. Any float dtype, no NaN.
"""

from ..kernels.passes import Bound, declare
from ..kernels.ranks import drawn_rows, rank_in_row, taken

SHAPES = {
    "x": "N* C", "rank": "int32: N* C", "y": "N* K", "dy": "N* K", "dx": "N* C", "tx": "N* C", "ty": "N* K",
}  # fmt: skip
drawn = drawn_rows


@declare(SHAPES, items="N C", writes="rank")
def find(t, rank, x, smallest=False):
    """Rank of each element, (N, C), of x, (N, C)."""
    n, c = divmod(t, x.shape[1])
    rank[n, c] = rank_in_row(x, n, c, smallest)


@declare(SHAPES, items="N K", writes="y", derive=taken)
def forward(t, y, x, rank, count=1):
    """Output y, (N, K), from x and rank, (N, C)."""
    n, k = divmod(t, y.shape[1])
    found = x[n, 0]
    for c in range(x.shape[1]):
        value = x[n, c]
        found = value if rank[n, c] == k else found
    y[n, k] = found


@declare(SHAPES, items="N C", writes="dx", derive=taken)
def grad_x(t, dx, dy, rank, count=1):
    """Gradient of x, (N, C), from dy, (N, K), and rank, (N, C)."""
    # forward: y[n,k] = x[n,c] where rank[n,c] = k
    n, c = divmod(t, dx.shape[1])
    place, found = rank[n, c], dx.dtype.type(0)
    for k in range(dy.shape[1]):
        value = dy[n, k]
        found = value if place == k else found
    dx[n, c] = found


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # ty = tx of the same ranks
