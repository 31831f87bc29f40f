"""A training that is watched: short probes choose the learning rate, and the best weights are kept.

Before the first step, and then after every `every` steps, the net is judged by its loss on samples that it does not
train on. The first steps are made once for each factor of PROBES on the learning rate, from the same weights on the
same mini-batches, and the training goes on from those that were judged best. A look far above the best one, or a loss
that is not finite, puts the best weights back and lowers the learning rate; after `patience` looks without a better one
the training ends. Then the best weights are in place, which may be those that it began with.

What is decided follows from the seed, and nothing waits between two steps to be decided, so a run that is taken up
again after any step (`Watched.resume`) ends with the same bits.

Our reading of what a net that is trained already needs, no paper's; fastai's `fine_tune` and its rate finder are the
models.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .. import arguments
from ..training.guard import NonFiniteError
from ..training.inputs import Inputs, samples
from ..training.trainer import Progress, Trainer

PROBES = (1.0, 0.25, 0.0625)  # factors on the learning rate that are tried
LEAST_PROBE = 10  # steps of a probe
LOOKS = 10  # at least so many in a run
PATIENCE = 0.4  # share of the looks of a run
LOWER = 0.25  # factor on the learning rate where the best weights are put back
FAR, MORE = 1.5, 0.2  # a loss above FAR·best + MORE is far above the best one
KEPT = FIRST, WINNER, BEST = "first", "winner", "best"  # weights that are kept
MOST = 10**12  # that may be counted
STEP, LOSSES = "step", "losses"  # what is kept beside the arrays of a trainer


class Glance(NamedTuple):
    """What was seen after `step` steps: the loss on the samples held out, and the main measure, such as accuracy."""

    step: int
    loss: float
    measure: float


def looked(trainer: Trainer, x: Inputs, y: np.ndarray) -> Glance:
    """Judge a trainer's net by samples that it does not train on."""
    found = trainer.measures(x, y)
    loss = found["loss"]
    return Glance(trainer.step, loss if math.isfinite(loss) else math.inf, next(iter(found.values())))


def counted(value) -> int:
    """A number of steps or of times; ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= MOST:
        raise ValueError(f"{value!r:.40} counts nothing")
    return value


def far(loss: float, best: float) -> bool:
    """Is a loss far above the best one?"""
    return not loss <= FAR * best + MORE


def sizes_of(ran: list[list[int]], count: int, batch: int) -> list[int]:
    """The mini-batches of steps, as ranges [first, end), of a run over `count` samples."""
    per_epoch = -(-count // batch)
    numbers = (step for first, end in ran for step in range(first, end))
    return [min(batch, count - step % per_epoch * batch) for step in numbers]


class Event(NamedTuple):
    """A step that was made: number `step` of at most `steps`, its loss, and the look after it where there was one.

    seconds: that the look took; part: of a recipe, "" where it is the run itself.
    """

    step: int
    steps: int
    loss: float
    look: Glance | None
    seconds: float = 0.0
    part: str = ""


@dataclass(frozen=True)
class Pace:
    """The steps of a watched training.

    total: of the run; every: from look to look; probe: of a probe; patience: looks; probes: how many. `most` is what
    is made at most: the run, and the probes with which it did not go on.
    """

    total: int
    every: int
    probe: int
    patience: int
    probes: int

    @classmethod
    def of(cls, count: int, batch: int, epochs: int, probes: int) -> "Pace":
        """For so many passes over `count` samples in mini-batches of `batch`."""
        per_epoch = -(-count // batch)
        total = epochs * per_epoch
        every = max(1, min(per_epoch, total // LOOKS))
        return cls(total, every, min(total, max(every, LEAST_PROBE)), max(3, round(PATIENCE * total / every)), probes)

    @property
    def most(self) -> int:
        """The most steps that are made."""
        return self.total + (self.probes - 1) * self.probe

    @property
    def most_looks(self) -> int:
        """The most looks that are made: before the first step, after each probe, and in the run."""
        later = -(-self.total // self.every) - self.probe // self.every if self.probe < self.total else 0
        return 1 + self.probes + later

    @property
    def least(self) -> int:
        """The steps of a run in which no look is better than that before the first step, and none fails."""
        ended = (self.probe // self.every + self.patience - 1) * self.every
        return (self.probes - 1) * self.probe + min(self.total, ended)


@dataclass
class Course:
    """What a watched training has been through.

    factor: on the learning rate, now; probed: the look after each probe; looks: of the run; best: place of the best of
    them; lowered: how often the best weights were put back; ran: the steps that were made, as ranges [first, end) of
    those of the run; seen: (section, samples) → how often the looks ran it; ended: is it done?
    """

    factor: float = 1.0
    probed: list[Glance] = field(default_factory=list)
    looks: list[Glance] = field(default_factory=list)
    best: int = 0
    lowered: int = 0
    ran: list[list[int]] = field(default_factory=list)
    seen: Counter = field(default_factory=Counter)
    ended: bool = False

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
        looks = {
            name: [Glance(counted(step), math.inf if loss is None else float(loss), float(measure))
                   for step, loss, measure in found[name]]
            for name in ("probed", "looks")
        }  # fmt: skip
        ran = [[counted(first), counted(end)] for first, end in found["ran"]]
        seen = Counter({(str(section), counted(n)): counted(times) for section, n, times in found["seen"]})
        course = cls(**{**found, **looks, "ran": ran, "seen": seen})
        if counted(course.best) >= max(1, len(course.looks)):
            raise ValueError(f"there is no look {course.best}")
        if not (counted(course.lowered) <= len(course.looks) and 0 < float(course.factor) < math.inf):
            raise ValueError(f"no run lowers a rate to {course.factor} of it in {course.lowered} times")
        if type(course.ended) is not bool or any(first >= end for first, end in ran):
            raise ValueError("no run ends so, or makes such steps")
        return course

    def as_json(self) -> dict:
        """As JSON takes it; a loss that is not finite is None."""
        looks = {
            name: [[k.step, k.loss if math.isfinite(k.loss) else None, k.measure] for k in getattr(self, name)]
            for name in ("probed", "looks")
        }
        return {**vars(self), **looks, "seen": [[section, n, times] for (section, n), times in self.seen.items()]}


class Watched:
    """A new trainer's run over x (M, …), y (M, …), watched by samples that it does not train on."""

    def __init__(
        self, trainer: Trainer, x: Inputs, y: np.ndarray, x_val: Inputs, y_val: np.ndarray, epochs: int,
        probes: tuple[float, ...] = PROBES,
    ):  # fmt: skip
        """epochs: the most passes over x; probes: factors on the learning rate, one alone needs no probe.

        ValueError without samples to judge by, and for data that do not fit the program.
        """
        arguments.whole("epochs", epochs, 1)
        if not samples(x_val):
            raise ValueError("a watched training needs samples that it does not train on, got none")
        trainer.check(x, y)
        trainer.check(x_val, y_val)
        self.trainer, self.x, self.y, self.x_val, self.y_val, self.epochs = trainer, x, y, x_val, y_val, epochs
        self.probes = probes
        self.pace = Pace.of(samples(x), trainer.program.batch, epochs, len(probes))
        self.course, self.kept = Course(), dict[str, dict[str, np.ndarray]]()
        self._fixed = {n for n, b in trainer.program.step.parameters.items() if b.region != "state"}
        self._steps: Iterator[Progress] | None = None

    def run(self) -> Iterator[Event]:
        """Train to the end, a step at a time; the best weights are in place when it ends."""
        if not self.course.looks:
            self._keep(FIRST)
            self._judge(self.look())
        while not self.course.ended:
            yield self._on()

    def saved(self) -> tuple[dict[str, np.ndarray], dict]:
        """What `resume` needs beside the trainer's own state: arrays by name, and what JSON takes."""
        arrays = {f"{of}/{name}": a for of, kept in self.kept.items() for name, a in kept.items()}
        return arrays, self.course.as_json()

    def resume(self, arrays: Mapping[str, np.ndarray], course: Mapping) -> None:
        """Go on from what `saved` gave; the trainer is resumed already. ValueError for what is of another plan."""
        try:
            self.course = Course.of(course)
        except (KeyError, TypeError) as e:
            raise ValueError(f"the course of a watched run lacks or has too much: {e}") from None
        self.kept = {}
        for key, array in arrays.items():
            of, _, name = key.partition("/")
            self.kept.setdefault(of, {})[name] = array
        begun = bool(self.course.looks)
        needed = {BEST} | ({FIRST} if self.probing else set()) if begun else set()
        if not needed <= self.kept.keys() <= {*KEPT} or not begun and (self.course.probed or self.course.ended):
            raise ValueError(
                f"a watched run that stands there keeps other weights than {', '.join(self.kept) or 'none'}"
            )
        for of, kept in self.kept.items():
            self.check(of, kept)
            if STEP not in kept or LOSSES not in kept or kept[STEP].shape != (1,) or kept[LOSSES].ndim != 1:
                raise ValueError(f"the weights kept as {of} do not say after which step")
            if counted(int(kept[STEP][0])) != len(kept[LOSSES]):
                raise ValueError(
                    f"the weights kept as {of} are of {kept[STEP][0]} steps with {len(kept[LOSSES])} losses"
                )

    def check(self, of: str, kept: Mapping[str, np.ndarray]) -> None:
        """ValueError where kept weights are not of this trainer's plan."""
        for name, a in self._changing():
            if name not in kept or kept[name].shape != a.shape or kept[name].dtype != a.dtype:
                raise ValueError(f"the weights kept as {of} have no array {name} of {a.dtype} {a.shape}")

    def changing(self) -> dict[str, np.ndarray]:
        """A copy of what training changes."""
        return {name: a.copy() for name, a in self._changing()}

    def _changing(self) -> Iterator[tuple[str, np.ndarray]]:
        return ((name, a) for name, a in self.trainer.resume_arrays().items() if name not in self._fixed)

    def sizes(self) -> list[int]:
        """The mini-batches of the steps that were made."""
        return sizes_of(self.course.ran, samples(self.x), self.trainer.program.batch)

    def told(self) -> dict:
        """What came of it, as JSON takes it."""
        return self.course.as_json()

    @property
    def most(self) -> int:
        """The most steps that are made."""
        return self.pace.most

    @property
    def probing(self) -> bool:
        """Is the learning rate yet to be chosen?"""
        return len(self.course.probed) < len(self.probes)

    def _on(self) -> Event:
        """Make one step, and decide what follows where a look is due."""
        course, trainer, pace = self.course, self.trainer, self.pace
        if self.probing:
            course.factor = self.probes[len(course.probed)]
        due = pace.probe if self.probing else min(pace.total, (trainer.step // pace.every + 1) * pace.every)
        trainer.factor = course.factor
        self._steps = self._steps or trainer.steps(self.x, self.y, self.epochs)
        try:
            loss = next(self._steps).loss
            course.count(trainer.step - 1)
            done, look = time.perf_counter(), self.look() if trainer.step >= due else None
        except NonFiniteError:
            self._steps = None
            done, loss, look = time.perf_counter(), math.inf, Glance(due, math.inf, 0.0)
        if look is not None:
            (self._probed if self.probing else self._looked)(look)
        return Event(course.made, pace.most, loss, look, time.perf_counter() - done)

    def _probed(self, look: Glance) -> None:
        """A probe is done: make the next one, or go on where the best of them stands."""
        course = self.course
        if look.loss < min((k.loss for k in course.probed), default=math.inf):
            self._keep(WINNER)
        course.probed.append(look)
        if self.probing:
            self.put(FIRST)
            return
        del self.kept[FIRST]
        if WINNER not in self.kept:  # every rate failed
            self._lower(look.step)
            return
        best = min(range(len(self.probes)), key=lambda i: course.probed[i].loss)
        course.factor = self.probes[best]
        self.put(WINNER)
        del self.kept[WINNER]
        self._looked(course.probed[best])

    def _looked(self, look: Glance) -> None:
        """A look of the run: keep the weights, go back to the best ones, or end."""
        course, pace = self.course, self.pace
        self._judge(look)
        if far(look.loss, course.looks[course.best].loss):
            self._lower(look.step)
        if self.trainer.step >= pace.total or len(course.looks) - 1 - course.best >= pace.patience:
            self.put(BEST, self.trainer.step)
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
        self.kept[name] = self.changing() | steps

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
