"""Rows: what every kernel of this folder shares that sums over each row or seeks its largest element.

A block of threads holds `rows` rows, each with `lanes` neighbouring threads. Those of a row go over it together, each
over every lanes-th element, so that neighbouring threads read neighbouring ones. Then their parts are brought together
in shared memory, by halves: in one order, the same bits every time. All threads of a block meet at its barriers; those
of a row past the last one go over nothing on their way.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from ...compiler.executed import ADD, Ops
from ...kernels import cuda as house
from ...kernels.cuda import at, device
from ...kernels.cuda import late as cuda
from .tile import up


class RowBlock(NamedTuple):
    """Rows of a block, and threads of a row, a power of two."""

    rows: int
    lanes: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows * self.lanes

    def filled(self, rows: int) -> int:
        """Rows of the blocks that hold so many, the last one filled up."""
        return up(rows, self.rows) * self.rows


BLOCKS = (RowBlock(16, 8), RowBlock(4, 32), RowBlock(1, 128))
SMALL = RowBlock(2, 2)  # of the simulator, whose threads are threads of Python
EACH = 8  # elements for which a lane is worth the barriers that more of them take


def block_of(length: int) -> RowBlock:
    """The block for rows of so many elements: the fewest lanes that leave each EACH at most, else the most."""
    if house.simulated():
        return SMALL
    return next((block for block in BLOCKS if length <= block.lanes * EACH), BLOCKS[-1])


@cache
def placer(block: RowBlock):
    """Device function `(number, t, rows, length)` → row, lane and end of thread t of a block of this number.

    end: where its row ends, 0 past the last of all rows. All are unsigned: no place is asked whether it counts from
    the end.
    """
    many, lanes, nothing = at(block.rows), at(block.lanes), at(0)

    def place(number, t, rows, length):
        row = at(number) * many + at(t) // lanes
        return row, at(t) % lanes, at(length) if row < at(rows) else nothing

    return device(place)


def sum_of(a, b):
    """a + b."""
    return a + b


def larger_of(a, b):
    """The larger; a where it or b is no number."""
    return b if b > a else a


@cache
def over_lanes(block: RowBlock, both: Callable):
    """Device function `(parts, value, t)`: what `both` makes of the values of all lanes of a row, for each of them.

    parts, (threads,): shared memory. All threads of the block call it.
    """
    lanes, half, one, both = at(block.lanes), at(block.lanes // 2), at(1), device(both)

    def bring_together(parts, value, t):
        lane, step = at(t) % lanes, half
        parts[at(t)] = value
        cuda.syncthreads()
        while step:
            if lane < step:
                parts[at(t)] = both(parts[at(t)], parts[at(t) + step])
            cuda.syncthreads()
            step >>= one
        found = parts[at(t) - lane]
        cuda.syncthreads()  # all have read it before it is written again
        return found

    return device(bring_together)


class RowWise:
    """A kernel on rows: `kernel(*args)` launches it on as many blocks as they take.

    make: (block, dtype) → the CUDA kernel, made once for each; size: of the same arguments, rows and elements of each,
    without it the shape of the first. The dtype is that of the first argument.
    """

    def __init__(self, make: Callable, size: Callable[..., tuple[int, int]] = lambda y, *others: y.shape):
        self.plain, self.make, self.size = make, cache(make), size
        self.__name__, self.__module__ = f"{make.__module__.rsplit('.', 1)[-1]}_{make.__name__}", make.__module__

    def __call__(self, *args, stream=0) -> None:
        """Launch it in a stream; nothing where there are no rows."""
        rows, length = self.size(*args)
        if rows:
            block, dtype = block_of(length), np.dtype(args[0].dtype).type
            self.make(block, dtype)[up(rows, block.rows), block.threads, stream](*args)


def lanes_added(rows: int, length: int) -> Ops:
    """What bringing together one sum of each row executes, rows past the last one too."""
    block = block_of(length)
    return ADD * (block.filled(rows) * (block.lanes - 1))


def threads_of(rows: int, length: int) -> int:
    """Lanes of all such rows, those past the last one left out."""
    return rows * block_of(length).lanes
