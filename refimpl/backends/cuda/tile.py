"""Products on tiles: what every product kernel of this folder shares.

A block of threads makes a tile of the result, `rows` by `columns`. It goes through the sum `depth` terms at a time:
all threads load a piece of both factors into shared memory, then each adds up its own `each_row` by `each_column`
results in registers. Those of a thread lie `rows / each_row` rows and `columns / each_column` columns apart, so that
neighbouring threads read neighbouring words. Terms are added in order: the same bits every time.

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

    def macs(self, rows: int, columns: int, terms: int) -> Ops:
        """What is executed for so many rows, columns and terms, tiles and pieces of the sum filled up with zeros."""
        return MAC * (up(rows, self.rows) * self.rows * up(columns, self.columns) * self.columns * terms)


# The widest first: a wide one reads each factor less often.
TILES = (Tile(64, 64, 16, 4, 4), Tile(128, 32, 16, 8, 2), Tile(128, 16, 16, 8, 1))
FILLED = 0.75  # of its columns that a tile should have at least
SMALL = (Tile(8, 4, 2, 2, 2),)  # of the simulator, whose threads are threads of Python


def up(n: int, step: int) -> int:
    """How many steps cover n."""
    return -(-n // step)


def tile_of(columns: int) -> Tile:
    """The tile for a result of so many columns: the widest that they fill, else the one that they fill most."""

    def filled(tile: Tile) -> float:
        return min(FILLED, columns / (up(columns, tile.columns) * tile.columns))

    return max(SMALL if cuda.simulated() else TILES, key=filled)


class Tiled:
    """A kernel on tiles: `kernel(*args)` launches it on the grid that its arguments ask for.

    make: (tile, dtype) → the CUDA kernel, made once for each; grid: of the same arguments, (blocks, columns of the
    result). The dtype is that of the first argument.
    """

    def __init__(self, make: Callable, grid: Callable[..., tuple[Callable[[Tile], tuple[int, int, int]], int]]):
        self.plain, self.make, self.grid = make, cache(make), grid
        self.__name__, self.__module__ = make.__name__, make.__module__

    def __call__(self, *args, stream=0) -> None:
        """Launch it in a stream; nothing where the result is empty."""
        blocks, columns = self.grid(*args)
        tile = tile_of(columns)
        if all(grid := blocks(tile)):
            self.make(tile, np.dtype(args[0].dtype).type)[grid, tile.threads, stream](*args)
