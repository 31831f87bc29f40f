"""Place buffers that live at different times into one block of memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.kernel import fast

UNBOUNDED = np.iinfo(np.int64).max
# Buffers that a process places in plain Python, within seconds. The compiled form is a hundred times as fast, but to
# load it takes 0.2 s and 45 MB, which a command that only asks for a price is not to spend.
PLAIN = 8000
_placed = 0
ALIGN = 64  # bytes: a cache line, and the widest vector


def end_to_end(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where arrays of so many bytes begin that lie in order in one memory, and the bytes that they take there."""
    starts, end = [], 0
    for nbytes in sizes:
        starts.append(end)
        end += -(-nbytes // ALIGN) * ALIGN
    return starts, end


@dataclass(frozen=True)
class Lifetime:
    """Bytes needed from launch `first` to launch `last`, both included."""

    nbytes: int
    first: int
    last: int

    def overlaps(self, other: "Lifetime") -> bool:
        """Do the two live at the same time at any launch?"""
        return self.first <= other.last and other.first <= self.last


def lower_bound(lifetimes: Sequence[Lifetime]) -> tuple[int, int]:
    """Largest sum of bytes alive at one launch, and the first such launch: no placement can need less."""
    if not lifetimes:
        return 0, 0
    change = np.zeros(max(life.last for life in lifetimes) + 2, np.int64)
    for life in lifetimes:
        change[life.first] += life.nbytes
        change[life.last + 1] -= life.nbytes
    alive = np.cumsum(change)
    launch = int(np.argmax(alive))
    return int(alive[launch]), launch


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets of the buffers, and the end of the highest one: the arena's size in bytes.

    Greedy: each buffer in turn takes the lowest gap among the placed ones that live at the same time. Several orders
    are tried, until one needs no more than the lower bound, and the smallest result is kept; all are fixed, so the
    placement is the same on every machine.
    """
    table = np.array([(life.nbytes, life.first, life.last) for life in lifetimes], np.int64).reshape(-1, 3)
    nbytes, first, last = np.ascontiguousarray(table.T)
    number, launches = np.arange(len(lifetimes)), last - first + 1
    orders = (
        (number, first, -nbytes),
        (number, -nbytes * launches),
        (number, -nbytes, -launches),
        (number, -nbytes, first),
    )
    bound = lower_bound(lifetimes)[0]
    best, peak = [], UNBOUNDED
    for keys in orders:
        offsets, end = in_order(np.lexsort(keys), nbytes, first, last, peak)
        if end < peak:
            best, peak = offsets, end
        if peak <= bound:
            break
    return best, peak


def in_order(
    order: np.ndarray, nbytes: np.ndarray, first: np.ndarray, last: np.ndarray, below: int = UNBOUNDED
) -> tuple[list[int], int]:
    """Offsets of buffers placed in this order, and the end of the highest one, no less than `below` where that is met.

    nbytes, first, last: of each buffer, int64 (B,).
    """
    global _placed
    _placed += len(nbytes)
    plain = _placed <= PLAIN
    offsets, placed = np.zeros(len(nbytes), np.int64), np.empty((4, len(nbytes)), np.int64)
    arrays = (offsets, placed, order, nbytes, first, last)
    if plain:
        arrays = tuple(a.tolist() for a in arrays)
    end = (lowest_gaps if plain else compiled_lowest_gaps)(*arrays, below)
    return (arrays[0] if plain else offsets.tolist()), int(end)


def lowest_gaps(offsets, placed, order, nbytes, first, last, below):
    """Fill offsets, (B,), in `order`; placed, (4, B): start, end, first and last launch of those that have their place.

    They are kept by rising start, so that a buffer looks at no more of them than lie below the gap that it finds.
    """
    start, end, since, until = placed
    count, peak = 0, 0
    for i in order:
        size = nbytes[i]
        if size == 0:
            continue
        at = 0
        for j in range(count):
            if since[j] <= last[i] and first[i] <= until[j]:
                if start[j] >= at + size:
                    break
                at = max(at, end[j])
        offsets[i] = at
        peak = max(peak, at + size)
        if peak >= below:
            break
        k = count
        while k > 0 and start[k - 1] > at:
            for column in placed:
                column[k] = column[k - 1]
            k -= 1
        start[k], since[k], until[k] = at, first[i], last[i]
        end[k] = at + (size + ALIGN - 1) // ALIGN * ALIGN
        count += 1
    return peak


compiled_lowest_gaps = fast(lowest_gaps, parallel=False, fastmath=False)
