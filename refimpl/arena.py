"""Place buffers that live at different times into one block of memory."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Largest sum of bytes alive at one launch, and that launch: no placement can need less."""
    launches = sorted({t.first for t in lifetimes})
    sums = [(sum(t.nbytes for t in lifetimes if t.first <= i <= t.last), -i) for i in launches]
    most, launch = max(sums, default=(0, 0))
    return most, -launch


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets of the buffers, and the end of the highest one: the arena's size in bytes.

    Greedy: each buffer in turn takes the lowest gap among the placed ones that live at the same time. Several orders
    are tried and the smallest result is kept; all are fixed, so the placement is the same on every machine.
    """
    number = range(len(lifetimes))
    orders = (
        sorted(number, key=lambda i: (-lifetimes[i].nbytes, lifetimes[i].first, i)),
        sorted(number, key=lambda i: (-lifetimes[i].nbytes * (lifetimes[i].last - lifetimes[i].first + 1), i)),
        sorted(number, key=lambda i: (lifetimes[i].first - lifetimes[i].last, -lifetimes[i].nbytes, i)),
        sorted(number, key=lambda i: (lifetimes[i].first, -lifetimes[i].nbytes, i)),
    )
    results = [_place_in(order, lifetimes) for order in orders]
    return min(results, key=lambda r: r[1])


def _place_in(order: Sequence[int], lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for i in order:
        taken = sorted(
            (offsets[j], offsets[j] + lifetimes[j].nbytes) for j in placed if lifetimes[j].overlaps(lifetimes[i])
        )
        at = 0
        for start, end in taken:
            if at + lifetimes[i].nbytes <= start:
                break
            at = max(at, -(-end // ALIGN) * ALIGN)
        offsets[i] = at
        if lifetimes[i].nbytes:
            placed.append(i)
    return offsets, max((offsets[i] + lifetimes[i].nbytes for i in placed), default=0)
