"""Place buffers that live at different times into one block of memory."""

import math
from bisect import bisect_left, bisect_right
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
    change = np.zeros(max(life.last for life in lifetimes) + 2, np.int64)
    for life in lifetimes:
        change[life.first] += life.nbytes
        change[life.last + 1] -= life.nbytes
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
        lambda i: (-lifetimes[i].nbytes, lifetimes[i].first, i),
        lambda i: (-lifetimes[i].nbytes * (lifetimes[i].last - lifetimes[i].first + 1), i),
        lambda i: (lifetimes[i].first - lifetimes[i].last, -lifetimes[i].nbytes, i),
        lambda i: (lifetimes[i].first, -lifetimes[i].nbytes, i),
    )
    bound = max(enough, lower_bound(lifetimes)[0])
    ranges = Ranges(lifetimes)
    best, peak = [0] * len(lifetimes), math.inf
    for order in orders:
        best, peak = _place_in(sorted(number, key=order), lifetimes, ranges, peak) or (best, peak)
        if peak <= bound:
            break
    return best, peak


class Ranges:
    """A tree over the launches: node 1 stands for all of them, 2i and 2i + 1 for the halves of what i stands for.

    inside: of each lifetime the largest nodes that stand for launches in it alone; above: the nodes over those.
    """

    def __init__(self, lifetimes: Sequence[Lifetime]):
        self.leaves = 1 << max((life.last for life in lifetimes), default=0).bit_length()
        self.inside: list[list[int]] = []
        self.above: list[set[int]] = []
        for life in lifetimes:
            inside, above = [], set()
            low, high = life.first + self.leaves, life.last + self.leaves
            while low <= high:
                if low & 1:
                    inside.append(low)
                    low += 1
                if not high & 1:
                    inside.append(high)
                    high -= 1
                low >>= 1
                high >>= 1
            for node in inside:
                while (node := node >> 1) and node not in above:
                    above.add(node)
            self.inside.append(inside)
            self.above.append(above)


def _place_in(
    order: Sequence[int], lifetimes: Sequence[Lifetime], ranges: Ranges, below: float = math.inf
) -> tuple[list[int], int] | None:
    """Offsets and the end of the highest buffer; None where that does not come out lower than `below`.

    Each buffer looks at the bytes taken under the nodes inside its lifetime and throughout those above them.

    That are some logarithms of the number of launches, however many buffers live at the same time.
    """
    offsets = [0] * len(lifetimes)
    peak = 0
    # Of each node the bytes taken at any of its launches, and those that one buffer takes at all of them.
    some: list[list[int]] = [[] for _ in range(2 * ranges.leaves)]
    throughout: list[list[int]] = [[] for _ in range(2 * ranges.leaves)]
    for i in order:
        nbytes = lifetimes[i].nbytes
        if not nbytes:
            continue
        inside, above = ranges.inside[i], ranges.above[i]
        taken = [some[node] for node in inside if some[node]] + [throughout[node] for node in above if throughout[node]]
        offsets[i] = at = _lowest_gap(taken, nbytes)
        peak = max(peak, at + nbytes)
        if peak >= below:
            return None
        end = at + -(-nbytes // ALIGN) * ALIGN
        for node in inside:
            _take(some[node], at, end)
            _take(throughout[node], at, end)
        for node in above:
            _take(some[node], at, end)
    return offsets, peak


def _lowest_gap(taken: Sequence[list[int]], nbytes: int) -> int:
    """The lowest offset of `nbytes` that are free in all of `taken`, each the borders of its spans (`_take`)."""
    offset, moved = 0, True
    following = [borders[0] for borders in taken]  # of each the start of the next span that may be in the way
    while moved:
        moved = False
        for i, start in enumerate(following):
            if start < offset + nbytes:
                borders = taken[i]
                k = bisect_right(borders, offset) | 1  # the first end above the offset
                while k < len(borders) and borders[k - 1] < offset + nbytes:
                    offset, moved = borders[k], True
                    k += 2
                following[i] = borders[k - 1] if k < len(borders) else math.inf
    return offset


def _take(borders: list[int], start: int, end: int) -> None:
    """Add the bytes from `start` to `end` to spans that do not touch: start, end, start, end, … by rising offset."""
    i, j = bisect_left(borders, start), bisect_right(borders, end)
    borders[i:j] = [start] * (1 - i % 2) + [end] * (1 - j % 2)
