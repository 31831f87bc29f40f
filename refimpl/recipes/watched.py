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

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from .. import arguments
from ..training.guard import NonFiniteError
from ..training.inputs import Inputs, samples
from ..training.trainer import Progress, Trainer
from .course import (
    AT_ONCE,
    GIVEN,
    PART,
    PROBES,
    SEARCH,
    Course,
    Event,
    Glance,
    Pace,
    counted,
    following,
    near,
    sizes_of,
)

REACH = 1 / PART  # on the rate of a probe
LOWER = 0.25  # factor on the learning rate where the best weights are put back
FAR, MORE = 1.5, 0.2  # a loss above FAR·best + MORE is far above the best one
FEW, SHARES = 2_000, (0.2, 0.1)  # below so many samples the first share of them is held out, else the second
KEPT = WINNER, BEST = "winner", "best"  # weights that are kept: the best of what is tried before, and of the run
OWN = "own"  # before the names of arrays of the new classifier, as it was before it trained
STEP, LOSSES = "step", "losses"  # what is kept beside the arrays of a trainer


def held_share(count: int) -> float:
    """The share of so many training samples that is held out."""
    return SHARES[count >= FEW]


def looked(trainer: Trainer, x: Inputs, y: np.ndarray) -> Glance:
    """Judge a trainer's net by samples that it does not train on."""
    found = trainer.measures(x, y)
    loss = found["loss"]
    return Glance(trainer.step, loss if math.isfinite(loss) else math.inf, next(iter(found.values())))


def check_arrays(arrays: Mapping[str, np.ndarray], trainer: Trainer) -> None:
    """ValueError for what are no arrays of a trainer's net."""
    there = trainer.resume_arrays() if arrays else {}
    for name, a in arrays.items():
        if name not in there or (there[name].shape, there[name].dtype) != (a.shape, a.dtype):
            raise ValueError(f"{name} of {a.dtype} {a.shape} is no array of the classifier")


def far(loss: float, best: float) -> bool:
    """Is a loss far above the best one?"""
    return not loss <= FAR * best + MORE


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
        self.losses: list[float] = []  # of the steps that this object made of the run, as far as they are known
        self._known = 0  # how many of the trainer's losses are among them, or before them
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
            self.losses.clear()  # they are of no run yet

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
        made = self.trainer.step
        with contextlib.suppress(NonFiniteError):  # the step will be made again
            self.trainer.settle()
        self.course.forget(made - self.trainer.step)
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
                or (found.at_once and found.probed)
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
            look = self._tried_look(look, pace.total)
            course.direct.append(look)
            if self._direct_over:
                if course.won is not None and not near(course.looks[0].loss, course.won.loss):
                    course.at_once = course.chosen = True
                else:
                    self.put(BEST)
                    self.losses.clear()  # that was not the run
        return Event(course.made, self.expected, loss, look, seconds, AT_ONCE)

    def _tried_look(self, look: Glance, end: int) -> Glance:
        """A look at what is tried before the run and ends after step `end`, at once where the loss is not finite.

        The weights are kept where it is the best so far.
        """
        if not math.isfinite(look.loss):
            return look._replace(step=end)
        won = self.course.won
        if won is None or look.loss < won.loss:
            self._keep(WINNER)
        return look

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
            look = self._tried_look(look, pace.probe)
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
        made = trainer.step
        try:
            loss = next(self._steps).loss
            made = trainer.step
            self.course.count(made - 1)
            if made >= due:
                trainer.settle()
        except NonFiniteError as e:
            self.course.forget(made + 1 - e.step)
            self._note(math.inf)
            self._steps = None
            return math.inf, Glance(due, math.inf, 0.0), 0.0
        self._note()
        done = time.perf_counter()
        look = self.look() if trainer.step >= due else None
        return loss, look, time.perf_counter() - done

    def _note(self, *more: float) -> None:
        """Put the losses that became known to the others, and more of them."""
        known = self.trainer.known
        self.losses += [*known[self._known :], *more]
        self._known = len(known)

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
        self._known = len(losses)
        self._steps = None
