"""How `Model.fit` trains safely: by the recipe of `gradledger adapt`, watched by samples that it does not train on.

The classifier trains first where it is new, short probes choose the learning rate, and the weights whose loss on the
samples held out was lowest are kept (`recipes.watched`, `recipes.head`). Where they tell fewer of these samples right
than those that the training began with, the latter stay. Unlike `adapt`, of few samples those held out never train: the
next call is watched by them too.
"""

from dataclasses import dataclass

import numpy as np

from ..data.dataset import DataError, Dataset
from ..data.splits import VALIDATION, chosen
from ..recipes.course import AT_ONCE, Glance
from ..recipes.head import Head, is_new
from ..recipes.watched import Watched, held_share
from ..training.inputs import samples
from ..training.trainer import Trainer

AUTO, PLAIN = RECIPES = ("auto", "plain")
Part = tuple[np.ndarray, np.ndarray]  # maps (M, H, W, C) and class numbers (M,)
HINT = f"recipe={PLAIN!r} makes the steps of the epochs on all samples, and nothing watches"


@dataclass(frozen=True)
class FitOutcome:
    """What a `fit` that was watched came to, on the samples that it did not train on.

    held: how many; before, after: loss and accuracy of the weights before it and of those that are kept; rate: learning
    rate that was chosen; steps: that were made, those of probes too; kept: are the weights others than before?
    """

    held: int
    before: Glance
    after: Glance
    rate: float
    steps: int
    kept: bool

    def __str__(self) -> str:
        if self.kept:
            gain = f"accuracy {100 * self.before.measure:.1f} to {100 * self.after.measure:.1f} %"
            return f"{gain} on the {self.held} samples held out, at a learning rate of {self.rate:g}"
        return (
            f"nothing that was tried tells the {self.held} samples held out better (accuracy "
            f"{100 * self.before.measure:.1f} %, loss {self.before.loss:.3g}): the weights are as they were; more "
            f"epochs or other samples may help, {HINT}"
        )


def held_out(x: object, numbers: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of the training samples of classes `numbers` (N,) train, and which are held out: indices, ascending.

    x: a Dataset says what belongs together, and draws as `adapt` does. DataError where none can be held out.
    """
    groups, spans, alike, name = None, None, None, "the data"
    if isinstance(x, Dataset):
        numbers, groups, spans, alike, name = x.y_train, x.groups, x.spans, x.alike, x.name
    try:
        train, held, _ = chosen(numbers, groups, spans, held_share(len(numbers)), seed, VALIDATION, name, alike)
    except DataError as e:
        raise DataError(f"{e}; {HINT}") from None
    return train, held


class Epochs:
    """The history of a run: of each epoch the mean loss of its steps, and the last look at the samples held out."""

    def __init__(self, steps: int, history: dict[str, list[float]]):
        """steps: of an epoch; history: is lengthened."""
        self.steps, self.history = steps, history
        self.done, self.look = 0, Glance(0, 0.0, 0.0)  # done: steps of the epochs that are over

    def follow(self, watched: Watched) -> None:
        """See a run to its end; one that ends within an epoch has a last one that is shorter."""
        kept = {name: len(values) for name, values in self.history.items()}
        tried = False
        for event in watched.run():
            self.look = event.look or self.look
            if tried and event.part != AT_ONCE:  # that was not the run
                self.done = 0
                for name, values in self.history.items():
                    del values[kept.get(name, 0) :]
            tried = event.part == AT_ONCE
            if (tried or not event.part) and len(watched.losses) - self.done >= self.steps:
                self.end(watched.losses[self.done : self.done + self.steps])
        if len(watched.losses) > self.done:
            self.end(watched.losses[self.done :])

    def end(self, losses: list[float]) -> None:
        """An epoch is over."""
        told = {"loss": float(np.mean(losses)), "val_loss": self.look.loss, "val_accuracy": self.look.measure}
        for name, value in told.items():
            self.history.setdefault(name, []).append(value)
        self.done += len(losses)


def fit_watched(
    trainer: Trainer, head: Head | None, train: Part, held: Part, epochs: int, factors: str,
    history: dict[str, list[float]],
) -> tuple[FitOutcome, list[int]]:  # fmt: skip
    """Train a new trainer's net; what came of it, and the mini-batches of its steps.

    head: what trains its classifier first. factors: on the learning rate that are tried, SEARCH or SAFE.
    """
    first, before = trainer.state(), None
    headed = head is not None and is_new(trainer.program.graph, head.tail)
    watched = Watched(trainer, *train, *held, epochs, factors, headed)
    if head is not None:
        for _ in head.fit(*train, *held):
            pass
        assert head.fitted is not None
        before = head.fitted.before
        watched.begin_headed(head.fitted.weights)
    Epochs(-(-samples(train[0]) // trainer.program.batch), history).follow(watched)
    course = watched.course
    before = before or course.looks[0]
    after = min((look for look in (course.won, course.looks[course.best]) if look), key=lambda look: look.loss)
    kept = after.loss < before.loss and after.measure >= before.measure
    if not kept:
        trainer.restore(first)
    rate = course.factor * trainer.program.plan.step.optimizer.lr
    return FitOutcome(len(held[1]), before, after if kept else before, rate, course.made, kept), watched.sizes()
