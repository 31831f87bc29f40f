"""A run over few samples: a watched one as a rehearsal, then the steps of the epochs on all of them.

Of few samples none can be spared. So the watched run (`watched`), which holds some out, is made over half of the epochs
to find a learning rate that does no harm; then the training begins again, from the same weights, on all samples, those
that were held out among them, at the rate that was found. The best weights of the rehearsal are kept instead where it
found nothing better than the beginning, and where the end is far above its best loss on the samples held out, although
it has been trained on them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..training.guard import NonFiniteError
from ..training.inputs import Inputs, samples
from ..training.trainer import Progress, Trainer
from .watched import BEST, PROBES, Event, Watched, counted, far, sizes_of

BEGIN = "begin"  # the weights from which both begin
REHEARSAL = 2  # the epochs are divided by this


@dataclass
class Again:
    """The training on all samples.

    begun, ended: has it? made: steps; loss: at the end, on the samples that were held out,
    None where it was not finite; kept: are its weights those of the run?
    """

    begun: bool = False
    ended: bool = False
    made: int = 0
    loss: float | None = None
    kept: bool = False


class Rehearsed:
    """A new trainer's run over all of the samples, after one over a part of them that the others watch."""

    def __init__(
        self, trainer: Trainer, part: tuple[Inputs, np.ndarray], held: tuple[Inputs, np.ndarray],
        whole: tuple[Inputs, np.ndarray], epochs: int, probes: tuple[float, ...] = PROBES,
    ):  # fmt: skip
        """part, held, whole: maps (M, …) and labels (M, …) to rehearse on, to watch by and to train on in the end."""
        trainer.check(*whole)
        self.trainer, self.whole, self.epochs = trainer, whole, epochs
        self.watched = Watched(trainer, *part, *held, -(-epochs // REHEARSAL), probes)
        self.again, self.begin = Again(), dict[str, np.ndarray]()
        self.total = epochs * -(-samples(whole[0]) // trainer.program.batch)
        self._steps: Iterator[Progress] | None = None

    @property
    def most(self) -> int:
        """The most steps that are made."""
        return self.watched.most + self.total

    def sizes(self) -> list[int]:
        """The mini-batches of the steps that were made."""
        batch = self.trainer.program.batch
        return self.watched.sizes() + sizes_of([[0, self.again.made]], samples(self.whole[0]), batch)

    def run(self) -> Iterator[Event]:
        """Train to the end, a step at a time; the weights that are kept are in place when it ends."""
        if not self.begin:
            self.begin = self.watched.changing()
        for event in self.watched.run():
            yield event._replace(steps=self.most, part="rehearsal")
        if not self.again.begun and not self.again.ended:
            if self.watched.course.best == 0:
                self.again.ended = True
            else:
                self._begin()
        while not self.again.ended:
            yield self._on()

    def saved(self) -> tuple[dict[str, np.ndarray], dict]:
        """What `resume` needs beside the trainer's own state: arrays by name, and what JSON takes."""
        arrays, course = self.watched.saved()
        return arrays | {f"{BEGIN}/{n}": a for n, a in self.begin.items()}, {
            "course": course,
            "again": asdict(self.again),
        }

    def resume(self, arrays: Mapping[str, np.ndarray], course: Mapping) -> None:
        """Go on from what `saved` gave; the trainer is resumed already. ValueError for what is of another plan."""
        try:
            self.again, own = Again(**course["again"]), course["course"]
            counted(self.again.made)
        except (KeyError, TypeError) as e:
            raise ValueError(f"the course of a rehearsed run lacks or has too much: {e}") from None
        flags = (self.again.begun, self.again.ended, self.again.kept)
        if any(type(flag) is not bool for flag in flags) or type(self.again.loss) not in (float, type(None)):
            raise ValueError("no run on all samples stands so")
        begin = f"{BEGIN}/"
        self.begin = {n.removeprefix(begin): a for n, a in arrays.items() if n.startswith(begin)}
        if self.begin:  # else it was saved before the first step
            self.watched.check(BEGIN, self.begin)
        self.watched.resume({n: a for n, a in arrays.items() if not n.startswith(begin)}, own)

    def told(self) -> dict:
        """What came of it, as JSON takes it."""
        return self.watched.told() | {"again": asdict(self.again)}

    def _begin(self) -> None:
        """The weights of the beginning again."""
        self.trainer.resume({**self.trainer.resume_arrays(), **self.begin}, 0, [])
        self.again.begun = True

    def _on(self) -> Event:
        """Make one step on all samples; after the last one decide which weights are kept."""
        again, trainer = self.again, self.trainer
        trainer.factor = self.watched.course.factor
        self._steps = self._steps or trainer.steps(*self.whole, self.epochs)
        try:
            loss = next(self._steps).loss
            again.made += 1
            again.ended = trainer.step >= self.total
        except NonFiniteError:
            loss, again.ended = np.inf, True
        look = None
        if again.ended:
            look = self.watched.look() if np.isfinite(loss) else None
            best = self.watched.course.looks[self.watched.course.best].loss
            again.loss = look.loss if look and np.isfinite(look.loss) else None
            again.kept = again.loss is not None and not far(again.loss, best)
            if not again.kept:
                self.watched.put(BEST)
        made = self.watched.course.made + again.made
        return Event(made, self.most, loss, look)
