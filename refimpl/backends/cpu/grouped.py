"""Matrix products of many groups at once, each on tiles of rows that threads share.

Letters as in `ops.matmul`: a, b and c are C-contiguous (N, G, …), and nothing is allocated.
"""

import numpy as np
from numba import prange

from ...compiler.executed import NOTHING, Ops, executes, pieces
from .gather import up
from .matmul import product, product_executes
from .shared import TileKernel

TILE = 64  # rows of a group that one item makes


def products_executes(c, a, b, sizes, strides) -> Ops:
    """The products of each tile."""
    m, n, k = sizes
    tiles = (product_executes(rows, n, k, c.dtype.itemsize) * count for rows, count in pieces(m, TILE))
    return sum(tiles, NOTHING) * (c.shape[0] * c.shape[1])


@executes(products_executes)
@TileKernel
def products(c, a, b, sizes, strides):
    """C (m, n) ← A (m, k) · B (k, n) of each sample and group, of which c, a and b have as many.

    sizes: m, n and k; strides: elements from a row of A to the next, and from a column, and the same of B, of which one
    of the last two is 1.
    """
    m, n, k = sizes
    a_row, a_k, b_k, b_column = strides
    parts = up(m, TILE)
    for t in prange(c.shape[0] * c.shape[1] * parts):
        item = np.int64(t)
        group, first = item // parts, item % parts * TILE
        a0, b0, c0 = group * m * k + first * a_row, group * k * n, (group * m + first) * n
        product(min(TILE, m - first), n, k, a, a0, a_row, a_k, b, b0, b_k, b_column, False, c, c0, n)
