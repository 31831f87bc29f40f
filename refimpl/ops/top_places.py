"""Where the largest elements of each row stand, in their order, as floats: y[n, k] = c where rank[n, c] = k.

Ranks, and `smallest`, are as for the elements themselves (`top_values`). It has no gradient: gradients stop here.
Dimensions: N rows (all axes before the last), C elements of a row, K of those that are taken. Any float dtype, no NaN.
"""

from ..kernels.passes import declare
from ..kernels.ranks import drawn_rows, rank_in_row, taken

SHAPES = {"x": "N* C", "rank": "N* C", "y": "N* K"}
STOPS = ("x",)
drawn = drawn_rows


@declare(SHAPES, items="N C", writes="rank")
def find(t, rank, x, smallest=False):
    """Rank of each element, (N, C), of x, (N, C)."""
    n, c = divmod(t, x.shape[1])
    rank[n, c] = rank.dtype.type(rank_in_row(x, n, c, smallest))


@declare(SHAPES, items="N K", writes="y", derive=taken)
def forward(t, y, rank, count=1):
    """Output y, (N, K), from rank, (N, C)."""
    n, k = divmod(t, y.shape[1])
    found = 0
    for c in range(rank.shape[1]):
        found = c if rank[n, c] == rank.dtype.type(k) else found
    y[n, k] = y.dtype.type(found)
