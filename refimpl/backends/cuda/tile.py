"""Products on tiles: what every product kernel of this folder shares.

A block of threads makes a tile of the result, `rows` by `columns`. It goes through the sum `depth` terms at a time:
all threads load a piece of both factors into shared memory, then each adds up its own `each_row` by `each_column`
results in registers. Those of a thread lie beside each other, so that it reads up to four numbers of a factor at once.
In the end all results lie in shared memory, from where neighbouring threads take neighbouring ones. Terms are added in
order: the same bits every time.

Numba offers no tensor cores: products run on the units for float32, and in float64 for checks.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from ...compiler.executed import MAC, Ops
from ...kernels import cuda


class Tile(NamedTuple):
    """What a block makes, and what each of its threads does of it."""

    rows: int
    columns: int
    depth: int
    each_row: int
    each_column: int

    @property
    def down(self) -> int:
        """Threads along the rows."""
        return self.rows // self.each_row

    @property
    def across(self) -> int:
        """Threads along the columns."""
        return self.columns // self.each_column

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.down * self.across

    @property
    def own(self) -> tuple[int, int]:
        """Shape of a piece of the rows in shared memory: each line begins where four numbers are read at once."""
        return self.depth, self.rows + VECTOR

    @property
    def other(self) -> tuple[int, int]:
        """The same of the columns."""
        return self.depth, self.columns + VECTOR

    def shared_bytes(self, dtype) -> int:
        """Bytes of both pieces and of the results in shared memory."""
        (depth, own), (_, other) = self.own, self.other
        return np.dtype(dtype).itemsize * (depth * (own + other) + self.rows * self.columns)

    def macs(self, rows: int, columns: int, terms: int) -> Ops:
        """What is executed for so many rows, columns and terms, tiles and pieces of the sum filled up with zeros."""
        return MAC * (up(rows, self.rows) * self.rows * up(columns, self.columns) * self.columns * terms)


TILES = (
    Tile(64, 64, 16, 4, 4), Tile(128, 32, 16, 8, 2), Tile(128, 16, 16, 8, 1), Tile(32, 64, 16, 2, 4),
    Tile(32, 32, 16, 2, 2), Tile(16, 64, 16, 1, 4),
)  # fmt: skip
SMALL = (Tile(8, 4, 2, 2, 2), Tile(4, 4, 2, 1, 2))  # of the simulator, whose threads are threads of Python
VECTOR, ALIGNED = 4, 16  # numbers that are read at once, and the bytes at whose multiples they begin
MOST_SHARED = 46 << 10  # bytes, beside which a block of 48 KiB still holds the places of its rows
FEW = 8  # columns, channels or outputs of a group below which tiles are mostly zeros


def up(n: int, step: int) -> int:
    """How many steps cover n."""
    return -(-n // step)


def tile_of(rows: int, columns: int, terms: int, dtype=np.float32) -> Tile:
    """The tile for a result of so many rows and columns, whose sums come in pieces of so many terms.

    That which executes least: zeros that fill it up count, and so does what a thread loads for each product. dtype: of
    what lies in shared memory.
    """

    def cost(tile: Tile) -> float:
        filled = up(rows, tile.rows) * tile.rows * up(columns, tile.columns) * tile.columns
        return filled * (1 + 1 / tile.each_row + 1 / tile.each_column)

    best = min(SMALL if cuda.simulated() else TILES, key=cost)
    half = best._replace(depth=best.depth // 2)
    large = best.shared_bytes(dtype) > MOST_SHARED
    few = 0 < terms % best.depth <= half.depth and terms < 4 * best.depth
    even = half.depth and not (best.rows * half.depth % best.threads or best.columns * half.depth % best.threads)
    return half if (few or large) and even else best


@cache
def adder(tile: Tile):
    """Device function `(total, own, other, t)`: thread t adds the products of two pieces to its results.

    total (each_row, each_column), in registers; own (depth, at least rows) and other (depth, at least columns), in
    shared memory, ALIGNED. Places are unsigned, so that none is asked whether it counts from the end, and the sum is a
    `while`, which the compiler unrolls.
    """
    _, _, depth, each_row, each_column = tile
    across = tile.across
    end, one = np.uint64(depth), np.uint64(1)

    def add_products(total, own, other, t):
        d = np.uint64(0)
        while d < end:
            for i in range(each_row):
                value = own[d, np.uint64(t // across * each_row + i)]
                for j in range(each_column):
                    total[i, j] += value * other[d, np.uint64(t % across * each_column + j)]
            d += one

    return cuda.device(add_products)


@cache
def handing_over(tile: Tile):
    """Device function `(result, total, t)`: thread t writes its results to the tile's, (rows, columns)."""
    _, _, _, each_row, each_column = tile
    across = tile.across

    def hand_over(result, total, t):
        for i in range(each_row):
            for j in range(each_column):
                result[np.uint64(t // across * each_row + i), np.uint64(t % across * each_column + j)] = total[i, j]

    return cuda.device(hand_over)


class Tiled:
    """A kernel on tiles: `kernel(*args)` launches it on the grid that its arguments ask for.

    make: (tile, dtype) → the CUDA kernel, made once for each; result: of the same arguments, rows, columns and terms
    (`tile_of`), and how many such results there are. The dtype is that of the first argument.
    """

    def __init__(self, make: Callable, result: Callable[..., tuple[int, int, int, int]]):
        self.plain, self.make, self.result = make, cache(make), result
        self.__name__, self.__module__ = make.__name__, make.__module__

    def __call__(self, *args, stream=0) -> None:
        """Launch it in a stream; nothing where the result is empty."""
        rows, columns, terms, many = self.result(*args)
        dtype = np.dtype(args[0].dtype).type
        tile = tile_of(rows, columns, terms, dtype)
        grid = up(rows, tile.rows), up(columns, tile.columns), many
        if all(grid):
            self.make(tile, dtype)[grid, tile.threads, stream](*args)
