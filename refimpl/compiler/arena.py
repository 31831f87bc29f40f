"""Place buffers that live at different times into one block of memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def place(lifetimes: Sequence[Lifetime], enough: int = 0) -> tuple[list[int], int]:
    """Offsets of the buffers, and the end of the highest one: the arena's size in bytes.

    Greedy: each buffer in turn takes the lowest gap among the placed ones that live at the same time. Several orders
    are tried, until one needs no more than `enough`, and the smallest result is kept; all are fixed, so the placement
    is the same on every machine.
    """
    number = range(len(lifetimes))
    orders = (
        sorted(number, key=lambda i: (-lifetimes[i].nbytes, lifetimes[i].first, i)),
        sorted(number, key=lambda i: (-lifetimes[i].nbytes * (lifetimes[i].last - lifetimes[i].first + 1), i)),
        sorted(number, key=lambda i: (lifetimes[i].first - lifetimes[i].last, -lifetimes[i].nbytes, i)),
        sorted(number, key=lambda i: (lifetimes[i].first, -lifetimes[i].nbytes, i)),
    )
    bound = max(enough, lower_bound(lifetimes)[0])
    best = None
    for order in orders:
        found = _place_in(order, lifetimes)
        if best is None or found[1] < best[1]:
            best = found
        if best[1] <= bound:
            break
    return best


def _place_in(order: Sequence[int], lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    offsets = [0] * len(lifetimes)
    peak = placed = 0
    # Of each buffer that is placed, by rising offset: offset, end rounded up, first and last launch.
    rows = np.empty((4, len(lifetimes)), np.int64)
    for i in order:
        t = lifetimes[i]
        if not t.nbytes:
            continue
        starts, ends, first, last = rows[:, :placed]
        overlapping = (first <= t.last) & (last >= t.first)
        starts = starts[overlapping]
        free = np.zeros(len(starts) + 1, np.int64)  # where the gap before each of them begins, and the last one's end
        np.maximum.accumulate(ends[overlapping], out=free[1:])
        fits = free[:-1] + t.nbytes <= starts
        k = int(fits.argmax()) if len(fits) else 0
        offsets[i] = at = int(free[k] if len(fits) and fits[k] else free[-1])
        end = at + t.nbytes
        peak = max(peak, end)
        k = int(np.searchsorted(rows[0, :placed], at))
        rows[:, k + 1 : placed + 1] = rows[:, k:placed]
        rows[:, k] = at, -(-end // ALIGN) * ALIGN, t.first, t.last
        placed += 1
    return offsets, peak
