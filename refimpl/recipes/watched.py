"""A training that is watched: probes choose the learning rate, and the best weights are kept.

The net is judged by its loss on samples that it does not train on: before the first step, and then after every
`every` steps. Each probe of a factor on the learning rate begins with the weights that training begins with and makes
the first PART of the run's steps, at REACH times that rate, so that it goes about as far as the whole run would (less
far, where the run makes more than MOST_PROBE/PART steps), and falling to 0 along a cosine as in a whole run: what a
rate reaches in a few steps at its full height says little about where it ends, and favours low ones. From 1 the
factor rises while that is not clearly worse, and falls where 1 stays the best, while that is better or nothing
improves on the beginning. A rate that is given is tried as it is, and lowered while nothing improves.

Where a new classifier trained alone before (`head`), the whole run is tried first with the one that knows nothing, all
layers from the first step on: a classifier that knows the samples already leaves the layers below little to learn from.
Where the loss of the trained classifier is clearly worse than the lowest one of that run, this is the run, and no
probes are made; else the trained classifier is put back.

The training then begins again with the factor whose probe saw the lowest loss. A look far above the best one, or a loss
that is not finite, puts the best weights back and lowers the learning rate; after `patience` looks without a better one
the training ends. Then the best weights are in place, which may be those of a probe or those that it began with.

What is decided follows from the seed, and nothing waits between two steps to be decided, so a run that is taken up
again after any step (`Watched.resume`) ends with the same bits.

Our reading of what a net that is trained already needs, no paper's; fastai's `fine_tune` and its rate finder are the
models.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .. import arguments
from ..training.guard import NonFiniteError
from ..training.inputs import Inputs, samples
from ..training.trainer import Progress, Trainer

SEARCH, SAFE, GIVEN = "search", "safe", "given"  # factors that are tried: both ways; down where 1 does harm; none
STEP_UP, STEP_DOWN, MOST, LEAST = 4.0, 0.25, 16.0, 1 / 64  # from factor to factor, and how far they go
NEAR, LITTLE = 1.1, 0.02  # a loss up to NEAR·best + LITTLE may be as good as the best one, of a few samples held out
PART, LEAST_PROBE, MOST_PROBE = 0.25, 10, 300  # share of the run's steps that a probe makes, between these
REACH = 1 / PART  # on the rate of a probe
LOOKS = 10  # at least so many in a run
PATIENCE = 0.4  # share of the looks of a run
PROBES = "learning rate"  # the part of a recipe that chooses it
AT_ONCE = "all layers at once"  # the part that tries the run with a classifier that knows nothing
LOWER = 0.25  # factor on the learning rate where the best weights are put back
FAR, MORE = 1.5, 0.2  # a loss above FAR·best + MORE is far above the best one
FEW, SHARES = 2_000, (0.2, 0.1)  # below so many samples the first share of them is held out, else the second
KEPT = WINNER, BEST = "winner", "best"  # weights that are kept: the best of what is tried before, and of the run
OWN = "own"  # before the names of arrays of the new classifier, as it was before it trained
COUNTS = 10**12  # more is no number of steps
STEP, LOSSES = "step", "losses"  # what is kept beside the arrays of a trainer


class Glance(NamedTuple):
    """What was seen after `step` steps: the loss on the samples held out, and the main measure, such as accuracy."""

    step: int
    loss: float
    measure: float


def held_share(count: int) -> float:
    """The share of so many training samples that is held out."""
    return SHARES[count >= FEW]


def looked(trainer: Trainer, x: Inputs, y: np.ndarray) -> Glance:
    """Judge a trainer's net by samples that it does not train on."""
    found = trainer.measures(x, y)
    loss = found["loss"]
    return Glance(trainer.step, loss if math.isfinite(loss) else math.inf, next(iter(found.values())))


def counted(value) -> int:
    """A number of steps or of times; ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= COUNTS:
        raise ValueError(f"{value!r:.40} counts nothing")
    return value


def check_arrays(arrays: Mapping[str, np.ndarray], trainer: Trainer) -> None:
    """ValueError for what are no arrays of a trainer's net."""
    there = trainer.resume_arrays() if arrays else {}
    for name, a in arrays.items():
        if name not in there or (there[name].shape, there[name].dtype) != (a.shape, a.dtype):
            raise ValueError(f"{name} of {a.dtype} {a.shape} is no array of the classifier")


def far(loss: float, best: float) -> bool:
    """Is a loss far above the best one?"""
    return not loss <= FAR * best + MORE


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


def near(loss: float, best: float) -> bool:
    """May a loss be as good as the best one?"""
    return loss <= NEAR * best + LITTLE


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


class Watched:
    """A new trainer's run over x (M, …), y (M, …), watched by samples that it does not train on."""

    def __init__(
        self, trainer: Trainer, x: Inputs, y: np.ndarray, x_val: Inputs, y_val: np.ndarray, epochs: int,
        factors: str = SEARCH, headed: bool = False,
    ):  # fmt: skip
        """epochs: the most passes over x; factors: on the learning rate that are tried, SEARCH, SAFE or GIVEN.

        headed: does a new classifier train alone before, so that `own` will have its arrays of before?

        ValueError without samples to judge by, and for data that do not fit the program.
        """
        arguments.whole("epochs", epochs, 1)
        if not samples(x_val):
            raise ValueError("a watched training needs samples that it does not train on, got none")
        trainer.check(x, y)
        trainer.check(x_val, y_val)
        self.trainer, self.x, self.y, self.x_val, self.y_val, self.epochs = trainer, x, y, x_val, y_val, epochs
        self.factors, self.headed = factors, headed
        self.own: dict[str, np.ndarray] = {}  # the new classifier before it trained, where it did
        self.pace = Pace.of(samples(x), trainer.program.batch, epochs, factors)
        self.course, self.kept = Course(chosen=factors == GIVEN), dict[str, dict[str, np.ndarray]]()
        self._fixed = {n for n, b in trainer.program.step.parameters.items() if b.region != "state"}
        self._steps: Iterator[Progress] | None = None

    def run(self) -> Iterator[Event]:
        """Train to the end, a step at a time; the best weights are in place when it ends."""
        yield from self.choose()
        if self.course.at_once:  # that was the run
            self.put(WINNER, self.trainer.step)
            self.course.ended = True
        while not self.course.ended:
            yield self._on()

    def choose(self) -> Iterator[Event]:
        """Try what is tried before the run, a step at a time.

        The weights that the run begins with are in place then, but where what was tried first is the run (`at_once`).
        """
        course = self.course
        if not course.looks:
            self._judge(self.look())
        while self.own and not course.at_once and not self._direct_over:
            yield self._direct()
        while not course.chosen:
            yield self._probe()

    @property
    def _direct_over(self) -> bool:
        """Has the run of all layers at once ended?"""
        looks = self.course.direct
        return bool(looks) and self.pace.over(looks, min(range(len(looks)), key=lambda i: looks[i].loss))

    @property
    def improves(self) -> bool:
        """Did a probe improve on the beginning?"""
        won = self.course.won
        return won is not None and won.loss < self.course.looks[0].loss

    def saved(self) -> tuple[dict[str, np.ndarray], dict]:
        """What `resume` needs beside the trainer's own state: arrays by name, and what JSON takes."""
        kept = self.kept | ({OWN: self.own} if self.own else {})
        return {f"{of}/{name}": a for of, arrays in kept.items() for name, a in arrays.items()}, self.course.as_json()

    def resume(self, arrays: Mapping[str, np.ndarray], course: Mapping) -> None:
        """Go on from what `saved` gave; the trainer is resumed already. ValueError for what is of another plan."""
        try:
            self.course = found = Course.of(course)
        except (KeyError, TypeError) as e:
            raise ValueError(f"the course of a watched run lacks or has too much: {e}") from None
        self.kept = {}
        for key, array in arrays.items():
            of, _, name = key.partition("/")
            self.kept.setdefault(of, {})[name] = array
        self.own = self.kept.pop(OWN, {})
        check_arrays(self.own, self.trainer)
        if found.direct and not self.own:
            raise ValueError("a run of all layers at once lacks the classifier that it began with")
        needed = {name for name, there in ((BEST, found.looks), (WINNER, found.won)) if there}
        if self.kept.keys() != needed or not found.looks and (found.probed or found.ended):
            raise ValueError(
                f"a watched run that stands there keeps other weights than {', '.join(self.kept) or 'none'}"
            )
        if found.looks:
            tried, factor = self._tried()
            whole = all(probe[-1].step >= self.pace.probe for probe in found.probed[:-1])
            if (
                not whole
                or found.chosen != (factor is None or found.at_once)
                or found.at_once
                and bool(found.probed)
                or not 0 <= len(found.probed) - len(tried) <= (not found.chosen)
            ):
                raise ValueError("no search for a learning rate stands so")
        for of, kept in self.kept.items():
            for name, a in self._changing():
                if name not in kept or kept[name].shape != a.shape or kept[name].dtype != a.dtype:
                    raise ValueError(f"the weights kept as {of} have no array {name} of {a.dtype} {a.shape}")
            if STEP not in kept or LOSSES not in kept or kept[STEP].shape != (1,) or kept[LOSSES].ndim != 1:
                raise ValueError(f"the weights kept as {of} do not say after which step")
            if counted(int(kept[STEP][0])) != len(kept[LOSSES]):
                raise ValueError(
                    f"the weights kept as {of} are of {kept[STEP][0]} steps with {len(kept[LOSSES])} losses"
                )

    def _changing(self) -> Iterator[tuple[str, np.ndarray]]:
        return ((name, a) for name, a in self.trainer.resume_arrays().items() if name not in self._fixed)

    def sizes(self) -> list[int]:
        """The mini-batches of the steps that were made."""
        return sizes_of(self.course.ran, samples(self.x), self.trainer.program.batch)

    def told(self) -> dict:
        """What came of it, as JSON takes it; tried: [factor, lowest loss] of each probe."""
        tried, _ = self._tried()
        return self.course.as_json() | {
            "tried": [[factor, loss if math.isfinite(loss) else None] for factor, loss in tried.items()]
        }

    @property
    def before(self) -> int:
        """The steps of what is tried before the run, as far as that is known: the usual number of probes, or more."""
        course, pace, begun = self.course, self.pace, len(self.course.probed)
        if self._may_be_all:
            return pace.total
        direct = course.direct[-1].step if course.direct else 0
        return direct + pace.probe * (begun if course.chosen else max(begun, pace.usual))

    @property
    def _may_be_all(self) -> bool:
        """Is the run of all layers at once still to be judged, or has it won?"""
        return self.course.at_once or bool(self.own) and not self._direct_over

    @property
    def expected(self) -> int:
        """The steps that are made, as far as that is known."""
        return self.before + (0 if self._may_be_all else self.pace.total)

    @property
    def most(self) -> int:
        """The most steps that are made."""
        return self.pace.total * (1 + self.headed) + self.pace.most * self.pace.probe

    def _tried(self) -> tuple[dict[float, float], float | None]:
        """Factor → loss of the probes that are done, and the next factor."""
        course = self.course
        return following(course.looks[0].loss, course.losses(self.pace.probe), self.factors)

    def _direct(self) -> Event:
        """Make one step of the run of all layers at once, and decide what follows where it ends."""
        course, pace = self.course, self.pace
        if not self.trainer.step:
            self.put_own()
        loss, look, seconds = self._step(1.0, min(pace.total, (self.trainer.step // pace.every + 1) * pace.every))
        if look is not None:
            won = course.won
            if not math.isfinite(look.loss):
                look = look._replace(step=pace.total)
            elif won is None or look.loss < won.loss:
                self._keep(WINNER)
            course.direct.append(look)
            if self._direct_over:
                if course.won is not None and not near(course.looks[0].loss, course.won.loss):
                    course.at_once = course.chosen = True
                else:
                    self.put(BEST)
        return Event(course.made, self.expected, loss, look, seconds, AT_ONCE)

    def begin_headed(self, classifier: Mapping[str, np.ndarray]) -> None:
        """Begin with a classifier that was trained alone, its arrays by name; one that was new is kept as `own`."""
        now = self.trainer.resume_arrays()
        self.own = {name: now[name].copy() for name in classifier if self.headed}
        self.trainer.resume({**now, **classifier}, 0, [])

    def put_own(self) -> None:
        """Put the weights in place that the run of all layers at once begins with."""
        self.put(BEST)
        self.trainer.resume({**self.trainer.resume_arrays(), **self.own}, 0, [])

    def _probe(self) -> Event:
        """Make one step of a probe, and decide what follows where it ends."""
        course, pace = self.course, self.pace
        tried, factor = self._tried()
        assert factor is not None
        at, reach = self.trainer.step, REACH if self.factors == SEARCH else 1.0  # a rate that is given is tried itself
        loss, look, seconds = self._step(
            reach * factor * (1 + math.cos(math.pi * at / pace.probe)) / 2,
            min(pace.probe, (at // pace.every + 1) * pace.every),
        )
        if look is not None:
            won = course.won
            if not math.isfinite(look.loss):
                look = look._replace(step=pace.probe)
            elif won is None or look.loss < won.loss:
                self._keep(WINNER)
            if len(course.probed) == len(tried):
                course.probed.append([])
            course.probed[-1].append(look)
            if look.step >= pace.probe:
                tried, factor = self._tried()
                best = min(tried, key=lambda f: tried[f])
                course.factor = best if math.isfinite(tried[best]) else min(tried)
                course.chosen = factor is None
                self.put(BEST)
        return Event(course.made, self.expected, loss, look, seconds, PROBES)

    def _on(self) -> Event:
        """Make one step of the run, and decide what follows where a look is due."""
        course, pace = self.course, self.pace
        due = min(pace.total, (self.trainer.step // pace.every + 1) * pace.every)
        loss, look, seconds = self._step(course.factor, due)
        if look is not None:
            self._looked(look)
        return Event(course.made, self.expected, loss, look, seconds)

    def _step(self, factor: float, due: int) -> tuple[float, Glance | None, float]:
        """Make one step: its loss, and the look after step `due` and the seconds that it took.

        A loss that is not finite stands for a look, as of step `due`.
        """
        trainer = self.trainer
        trainer.factor = factor
        self._steps = self._steps or trainer.steps(self.x, self.y, self.epochs)
        try:
            loss = next(self._steps).loss
        except NonFiniteError:
            self._steps = None
            return math.inf, Glance(due, math.inf, 0.0), 0.0
        self.course.count(trainer.step - 1)
        done = time.perf_counter()
        look = self.look() if trainer.step >= due else None
        return loss, look, time.perf_counter() - done

    def _looked(self, look: Glance) -> None:
        """A look of the run: keep the weights, go back to the best ones, or end."""
        course, pace = self.course, self.pace
        self._judge(look)
        if far(look.loss, course.looks[course.best].loss):
            self._lower(look.step)
        if pace.over(course.looks, course.best):
            won = course.won
            self.put(WINNER if won and won.loss < course.looks[course.best].loss else BEST, self.trainer.step)
            course.ended = True

    def look(self) -> Glance:
        """Judge the net by the samples held out."""
        made = self.trainer.evaluator.runner.made
        before = sum(made.values(), Counter())
        look = looked(self.trainer, self.x_val, self.y_val)
        self.course.seen.update(sum(made.values(), Counter()) - before)
        return look

    def _judge(self, look: Glance) -> None:
        """Put a look to the others, and keep the weights where it is the best."""
        course = self.course
        course.looks.append(look)
        if len(course.looks) == 1 or look.loss < course.looks[course.best].loss:
            course.best = len(course.looks) - 1
            self._keep(BEST)

    def _lower(self, step: int) -> None:
        """The best weights again, with a lower learning rate; the run goes on after `step`."""
        self.put(BEST, step)
        self.course.factor *= LOWER
        self.course.lowered += 1

    def _keep(self, name: str) -> None:
        """Copy what training changes."""
        steps = {STEP: np.array([self.trainer.step]), LOSSES: np.array(self.trainer.losses)}
        self.kept[name] = {n: a.copy() for n, a in self._changing()} | steps

    def put(self, name: str, step: int | None = None) -> None:
        """Put kept weights back. step: where the run is, None is where they are from; counts of updates go with it."""
        trainer, kept = self.trainer, dict(self.kept[name])
        from_step, losses = int(kept.pop(STEP)[0]), kept.pop(LOSSES).tolist()
        now = trainer.resume_arrays()
        if step is not None:
            kept = {n: a for n, a in kept.items() if not n.startswith("updates/")}
            losses = (trainer.losses + [trainer.losses[-1] if trainer.losses else 0.0] * step)[:step]
        trainer.resume({**now, **kept}, from_step if step is None else step, losses)
        self._steps = None
