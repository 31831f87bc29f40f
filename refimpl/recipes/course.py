"""What a watched training goes through: its pace, the looks at it, and which learning rate is tried next.

Nothing here trains: `watched` does, and keeps a `Course` of it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SEARCH, SAFE, GIVEN = "search", "safe", "given"  # factors that are tried: both ways; down where 1 does harm; none
STEP_UP, STEP_DOWN, MOST, LEAST = 4.0, 0.25, 16.0, 1 / 64  # from factor to factor, and how far they go
NEAR, LITTLE = 1.1, 0.02  # a loss up to NEAR·best + LITTLE may be as good as the best one, of a few samples held out
PART, LEAST_PROBE, MOST_PROBE = 0.25, 10, 300  # share of the run's steps that a probe makes, between these
LOOKS = 10  # at least so many in a run
PATIENCE = 0.4  # share of the looks of a run
PROBES = "learning rate"  # the part of a recipe that chooses it
AT_ONCE = "all layers at once"  # the part that tries the run with a classifier that knows nothing
COUNTS = 10**12  # more is no number of steps


class Glance(NamedTuple):
    """What was seen after `step` steps: the loss on the samples held out, and the main measure, such as accuracy."""

    step: int
    loss: float
    measure: float


def counted(value) -> int:
    """A number of steps or of times; ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= COUNTS:
        raise ValueError(f"{value!r:.40} counts nothing")
    return value


def near(loss: float, best: float) -> bool:
    """May a loss be as good as the best one?"""
    return loss <= NEAR * best + LITTLE


def following(first: float, losses: Sequence[float], factors: str) -> tuple[dict[float, float], float | None]:
    """Factor → loss of the probes that were made, and the factor of the next probe; None where there is no other.

    first: the loss before any step; losses: the lowest of each probe, in their order; factors: SEARCH, SAFE or GIVEN.
    """
    tried: dict[float, float] = {}
    left = list(losses)
    while factors != GIVEN:
        factor = _next(first, tried, factors)
        if factor is None or not left:
            return tried, factor
        tried[factor] = left.pop(0)
    return tried, None


def _next(first: float, tried: dict[float, float], factors: str) -> float | None:
    if not tried:
        return 1.0
    best, lowest, highest = min(tried, key=lambda f: tried[f]), min(tried), max(tried)
    improves = tried[best] < first
    if factors == SEARCH and improves and near(tried[highest], tried[best]) and highest < MOST and lowest == 1:
        return highest * STEP_UP
    if (not improves or factors == SEARCH and best == lowest) and lowest > LEAST:
        return lowest * STEP_DOWN
    return None


def sizes_of(ran: list[list[int]], count: int, batch: int) -> list[int]:
    """The mini-batches of steps, as ranges [first, end), of a run over `count` samples."""
    per_epoch = -(-count // batch)
    numbers = (step for first, end in ran for step in range(first, end))
    return [min(batch, count - step % per_epoch * batch) for step in numbers]


class Event(NamedTuple):
    """A step that was made: number `step` of at most `steps`, its loss, and the look after it where there was one.

    seconds: that the look took; part: of a recipe, such as PROBES, "" where it is the run itself, for certain.
    """

    step: int
    steps: int
    loss: float
    look: Glance | None
    seconds: float = 0.0
    part: str = ""


@dataclass(frozen=True)
class Pace:
    """The steps and looks of a watched training.

    total: steps of the run; every: from look to look; probe: steps of a probe, 0 where there is none; patience: looks;
    factors: that are tried.
    """

    total: int
    every: int
    probe: int
    patience: int
    factors: str = SEARCH

    @classmethod
    def of(cls, count: int, batch: int, epochs: int, factors: str = SEARCH) -> "Pace":
        """For so many passes over `count` samples in mini-batches of `batch`."""
        per_epoch = -(-count // batch)
        total = epochs * per_epoch
        every = max(1, min(per_epoch, total // LOOKS))
        probe = min(total, MOST_PROBE, max(LEAST_PROBE, round(PART * total)))
        return cls(total, every, 0 if factors == GIVEN else probe, max(3, round(PATIENCE * total / every)), factors)

    def looks(self, steps: int) -> int:
        """The looks in so many steps from a beginning."""
        return -(-steps // self.every)

    @property
    def usual(self) -> int:
        """The probes that are usually made, and the fewest where none fails."""
        return {SEARCH: 3, SAFE: 1, GIVEN: 0}[self.factors]

    @property
    def most(self) -> int:
        """The most probes that are made."""
        return {SEARCH: 6, SAFE: 4, GIVEN: 0}[self.factors]

    @property
    def vain(self) -> int:
        """The probes that are made where none improves on the beginning."""
        return 0 if self.factors == GIVEN else 4

    @property
    def least(self) -> int:
        """The steps of a run in which no look is better than that before the first step, and none fails."""
        return self.vain * self.probe + self.impatient

    @property
    def impatient(self) -> int:
        """The steps of a run of which no look is better than the first one."""
        return min(self.total, self.patience * self.every)

    @property
    def directly(self) -> int:
        """The same of the run of all layers at once, before which nobody looks."""
        return min(self.total, (1 + self.patience) * self.every)

    def over(self, looks: Sequence[Glance], best: int) -> bool:
        """Does a run end after these looks, of which number `best` is the best?"""
        return looks[-1].step >= self.total or len(looks) - 1 - best >= self.patience


@dataclass
class Course:
    """What a watched training has been through.

    factor: on the learning rate of the run, now; direct: the looks at the run of all layers at once; probed: of each
    probe; looks: of the run, the first before any step; best: place of the best of these; lowered: how often the best
    weights were put back; ran: the steps that were made, as ranges [first, end) of those of the run; seen: (section,
    samples) → how often the looks ran it; at_once: do all layers train from the first step on, with a classifier that
    knows nothing? chosen: is the factor? ended: is all done?
    """

    factor: float = 1.0
    direct: list[Glance] = field(default_factory=list)
    probed: list[list[Glance]] = field(default_factory=list)
    looks: list[Glance] = field(default_factory=list)
    best: int = 0
    lowered: int = 0
    ran: list[list[int]] = field(default_factory=list)
    seen: Counter = field(default_factory=Counter)
    at_once: bool = False
    chosen: bool = False
    ended: bool = False

    @property
    def won(self) -> Glance | None:
        """The best look at what was tried before the run; None where none was finite."""
        finite = [look for tried in (self.direct, *self.probed) for look in tried if math.isfinite(look.loss)]
        return min(finite, key=lambda look: look.loss, default=None)

    def losses(self, steps: int) -> list[float]:
        """The lowest loss of each probe that made its `steps`; infinite where one was not finite."""
        done = [probe for probe in self.probed if probe[-1].step >= steps]
        return [min(look.loss for look in probe) if math.isfinite(probe[-1].loss) else math.inf for probe in done]

    @property
    def made(self) -> int:
        """How many steps were made, those of probes too."""
        return sum(end - first for first, end in self.ran)

    def count(self, step: int) -> None:
        """Step number `step` was made."""
        if self.ran and self.ran[-1][1] == step:
            self.ran[-1][1] += 1
        else:
            self.ran.append([step, step + 1])

    def forget(self, steps: int) -> None:
        """The last steps that were counted came to nothing: one before them was not finite."""
        if steps:
            self.ran[-1][1] -= steps
            if self.ran[-1][0] == self.ran[-1][1]:
                self.ran.pop()

    @classmethod
    def of(cls, found: Mapping) -> "Course":
        """The course of `as_json`; KeyError, TypeError or ValueError for what is none."""

        def glances(rows) -> list[Glance]:
            return [Glance(counted(step), math.inf if loss is None else float(loss), float(measure))
                    for step, loss, measure in rows]  # fmt: skip

        looks = {name: glances(found[name]) for name in ("direct", "looks")}
        probed = [glances(probe) for probe in found["probed"]]
        ran = [[counted(first), counted(end)] for first, end in found["ran"]]
        seen = Counter({(str(section), counted(n)): counted(times) for section, n, times in found["seen"]})
        course = cls(**{**found, **looks, "probed": probed, "ran": ran, "seen": seen})
        if counted(course.best) >= max(1, len(course.looks)):
            raise ValueError(f"there is no look {course.best}")
        if not (counted(course.lowered) <= len(course.looks) and 0 < float(course.factor) < math.inf):
            raise ValueError(f"no run lowers a rate to {course.factor} of it in {course.lowered} times")
        flags = (course.at_once, course.chosen, course.ended)
        if any(type(flag) is not bool for flag in flags) or any(first >= end for first, end in ran):
            raise ValueError("no run ends so, or makes such steps")
        if not all(course.probed):
            raise ValueError("there is no probe without a look")
        if course.at_once and not (course.direct and course.chosen) or course.direct and not course.looks:
            raise ValueError("no run was tried so")
        return course

    def as_json(self) -> dict:
        """As JSON takes it; a loss that is not finite is None."""

        def rows(glances: list[Glance]) -> list[list]:
            return [[k.step, k.loss if math.isfinite(k.loss) else None, k.measure] for k in glances]

        looks = {"direct": rows(self.direct), "probed": [rows(p) for p in self.probed], "looks": rows(self.looks)}
        return {**vars(self), **looks, "seen": [[section, n, times] for (section, n), times in self.seen.items()]}
