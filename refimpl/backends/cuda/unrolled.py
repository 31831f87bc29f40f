"""Kernels whose taps are constants: what layers of windows over maps (depthwise convolutions, pooling) share.

Division by a constant is a multiplication, a loop over taps is written out, and what a window meets is known when the
kernel is compiled: it is made once for each window.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ...kernels import cuda as house
from ...kernels.cuda import at
from .tile import up


class Taps(NamedTuple):
    """The constants of a kernel, the first eight of them the end of a geometry (`geometry_of`).

    Rows and columns of taps, rows and columns from an output pixel to the next and from a tap to the next, and rows
    above and columns left of the map. given: what a kernel can do without is there, such as a mask of dy.
    """

    rows: int
    columns: int
    down: int
    across: int
    apart_down: int
    apart_across: int
    above: int
    left: int
    given: bool = False


def multiple(n: int, step: int) -> int:
    """The first multiple of `step` that is no less."""
    return up(n, step) * step


def _parted(number, size):
    """(quotient, rest) of whole numbers that are not negative."""
    quotient = at(number) // at(size)
    return np.int64(quotient), np.int64(at(number) - quotient * at(size))


def _nearest(index, size):
    """The index within an axis that is nearest to one that may lie beside it."""
    return min(max(index, 0), size - 1)


nearest: Any = house.Late(lambda: house.toolkit().jit(device=True)(_nearest))
parted: Any = house.Late(lambda: house.toolkit().jit(device=True)(_parted))


class Unrolled:
    """A kernel `(items, *args)` whose taps are constants: those of its geometry.

    make: (taps, dtype) → the CUDA kernel, made once for each. geometry, optional: their places among the arguments.
    """

    def __init__(self, make: Callable, geometry: int, optional: int | None = None):
        room = make.__module__.rpartition(".")[2]
        self.plain, self.make, self.geometry, self.optional = make, cache(make), geometry, optional
        self.__name__, self.__module__ = f"{room}_{make.__name__}", make.__module__

    def __call__(self, items: int, *args, stream=0) -> None:
        """Launch it in a stream; nothing for no items."""
        if items:
            given = self.optional is not None and args[self.optional].shape[0] > 0
            kernel = self.make(Taps(*args[self.geometry][5:], given), np.dtype(args[0].dtype).type)
            blocks, threads = house.grid(items)
            kernel[blocks, threads, stream](items, *args)
