"""A run over few samples: probes that others watch, then the steps of the epochs on all of them.

Of few samples none can be spared. So some are held out for the probes (`watched`) that find a learning rate; then the
training begins again, from the same weights, on all samples, those that were held out among them, at that rate; or as
the run of all layers at once did, where that was better than the classifier alone and no probe was made. Where no probe
improved on the beginning, nothing trains. A classifier that trained alone before the probes did so on a part too:
before the samples held out have been looked at for the last time it must not know them, then it gives way to one that
trained on all of them (`instead`). Where the end is clearly above the lowest loss on the samples held out that was seen
before, although it has been trained on them, the weights of that are kept instead.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..training.guard import NonFiniteError
from ..training.inputs import Inputs, samples
from ..training.trainer import Progress, Trainer
from .course import SEARCH, Event, counted, near, sizes_of
from .watched import WINNER, Watched, check_arrays

INSTEAD = "instead"  # before the names of arrays that are kept beside those of the others


@dataclass
class Again:
    """The training on all samples.

    ended: has it? made: steps; loss: at the end, on the samples that were held out, None where it was not finite or no
    step was made; kept: are its weights those of the run?
    """

    ended: bool = False
    made: int = 0
    loss: float | None = None
    kept: bool = False


class Rehearsed:
    """A new trainer's run over all of the samples, after probes over a part of them that the others watch."""

    def __init__(
        self, trainer: Trainer, part: tuple[Inputs, np.ndarray], held: tuple[Inputs, np.ndarray],
        whole: tuple[Inputs, np.ndarray], epochs: int, factors: str = SEARCH, headed: bool = False,
    ):  # fmt: skip
        """part, held, whole: maps (M, …) and labels (M, …) to probe on, to watch by and to train on in the end.

        factors: on the learning rate that are tried, SEARCH or SAFE; headed: as of `Watched`.
        """
        trainer.check(*whole)
        self.instead: dict[str, np.ndarray] = {}  # arrays that take their place when the probes are over
        self.trainer, self.whole, self.epochs = trainer, whole, epochs
        self.watched = Watched(trainer, *part, *held, epochs, factors, headed)
        self.again = Again()
        self.total = epochs * -(-samples(whole[0]) // trainer.program.batch)
        self._steps: Iterator[Progress] | None = None

    @property
    def most(self) -> int:
        """The most steps that are made."""
        return self.watched.most - self.watched.pace.total + self.total

    def begin_headed(self, classifier: Mapping[str, np.ndarray]) -> None:
        """As `Watched.begin_headed`."""
        self.watched.begin_headed(classifier)

    def sizes(self) -> list[int]:
        """The mini-batches of the steps that were made."""
        batch = self.trainer.program.batch
        return self.watched.sizes() + sizes_of([[0, self.again.made]], samples(self.whole[0]), batch)

    def run(self) -> Iterator[Event]:
        """Train to the end, a step at a time; the weights that are kept are in place when it ends."""
        for event in self.watched.choose():
            yield event._replace(steps=self.watched.before + self.total)
        if not self.again.ended and not self.watched.improves:
            self._exchange()
            self.again.ended = True
        while not self.again.ended:
            yield self._on()

    def saved(self) -> tuple[dict[str, np.ndarray], dict]:
        """What `resume` needs beside the trainer's own state: arrays by name, and what JSON takes."""
        if self.again.made and not self.again.ended:
            with contextlib.suppress(NonFiniteError):  # the step will be made again
                self.trainer.settle()
            self.again.made = self.trainer.step
        arrays, course = self.watched.saved()
        arrays |= {f"{INSTEAD}/{name}": a for name, a in self.instead.items()}
        return arrays, {"course": course, "again": asdict(self.again)}

    def resume(self, arrays: Mapping[str, np.ndarray], course: Mapping) -> None:
        """Go on from what `saved` gave; the trainer is resumed already. ValueError for what is of another plan."""
        try:
            self.again, own = Again(**course["again"]), course["course"]
            counted(self.again.made)
        except (KeyError, TypeError) as e:
            raise ValueError(f"the course of a rehearsed run lacks or has too much: {e}") from None
        flags = (self.again.ended, self.again.kept)
        if any(type(flag) is not bool for flag in flags) or type(self.again.loss) not in (float, type(None)):
            raise ValueError("no run on all samples stands so")
        instead = {key for key in arrays if key.startswith(f"{INSTEAD}/")}
        self.instead = {key.removeprefix(f"{INSTEAD}/"): arrays[key] for key in instead}
        check_arrays(self.instead, self.trainer)
        self.watched.resume({key: a for key, a in arrays.items() if key not in instead}, own)

    def told(self) -> dict:
        """What came of it, as JSON takes it."""
        return self.watched.told() | {"again": asdict(self.again)}

    def _on(self) -> Event:
        """Make one step on all samples; after the last one decide which weights are kept."""
        again, trainer = self.again, self.trainer
        if not again.made:
            if self.watched.course.at_once:
                self.watched.put_own()
            else:
                self._exchange()
        trainer.factor = self.watched.course.factor
        self._steps = self._steps or trainer.steps(*self.whole, self.epochs)
        try:
            loss = next(self._steps).loss
            again.made = trainer.step
            again.ended = trainer.step >= self.total
        except NonFiniteError as e:
            again.made, again.ended, loss = e.step - 1, True, np.inf
        look = None
        if again.ended:
            look = self.watched.look() if np.isfinite(loss) else None
            won = self.watched.course.won
            assert won is not None  # else nothing would have trained
            again.loss = look.loss if look and np.isfinite(look.loss) else None
            again.kept = again.loss is not None and near(again.loss, won.loss)
            if not again.kept:
                if not self.watched.course.at_once:
                    self._exchange()
                self.watched.put(WINNER)
        return Event(self.watched.course.made + again.made, self.watched.before + self.total, loss, look)

    def _exchange(self) -> None:
        """Put the arrays of `instead` into the trainer, and keep those that were there."""
        now = self.trainer.resume_arrays()
        kept = {name: now[name].copy() for name in self.instead}
        self.trainer.resume({**now, **self.instead}, self.trainer.step, self.trainer.losses)
        self.instead = kept
