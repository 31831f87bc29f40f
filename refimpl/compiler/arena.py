"""Place buffers that live at different times into one block of memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..kernels.kernel import fast

UNBOUNDED = np.iinfo(np.int64).max
ALIGN = 64  # bytes: a cache line, and the widest vector


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
    change = np.zeros(max(t.last for t in lifetimes) + 2, np.int64)
    for t in lifetimes:
        change[t.first] += t.nbytes
        change[t.last + 1] -= t.nbytes
    alive = np.cumsum(change)
    launch = int(np.argmax(alive))
    return int(alive[launch]), launch


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets of the buffers, and the end of the highest one: the arena's size in bytes.

    Greedy: each buffer in turn takes the lowest gap among the placed ones that live at the same time. Several orders
    are tried, until one needs no more than the lower bound, and the smallest result is kept; all are fixed, so the
    placement is the same on every machine.
    """
    table = np.array([(t.nbytes, t.first, t.last) for t in lifetimes], np.int64).reshape(-1, 3)
    nbytes, first, last = np.ascontiguousarray(table.T)
    number, launches = np.arange(len(lifetimes)), last - first + 1
    orders = (
        (number, first, -nbytes),
        (number, -nbytes * launches),
        (number, -nbytes, -launches),
        (number, -nbytes, first),
    )
    bound = lower_bound(lifetimes)[0]
    best, peak = np.zeros(len(lifetimes), np.int64), UNBOUNDED
    for keys in orders:
        offsets, end = in_order(np.lexsort(keys), nbytes, first, last, peak)
        if end < peak:
            best, peak = offsets, end
        if peak <= bound:
            break
    return best.tolist(), peak


def in_order(
    order: np.ndarray, nbytes: np.ndarray, first: np.ndarray, last: np.ndarray, below: int = UNBOUNDED
) -> tuple[np.ndarray, int]:
    """Offsets of buffers placed in this order, and the end of the highest one, no less than `below` where that is met.

    nbytes, first, last: of each buffer, int64 (B,).
    """
    offsets = np.zeros(len(nbytes), np.int64)
    placed = np.empty((4, len(nbytes)), np.int64)
    return offsets, int(_lowest_gaps(offsets, placed, order, nbytes, first, last, below))


@partial(fast, parallel=False, fastmath=False)
def _lowest_gaps(offsets, placed, order, nbytes, first, last, below):
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
