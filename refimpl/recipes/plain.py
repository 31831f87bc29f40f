"""A training that nobody watches: the steps of the epochs at the plan's rate, and the weights that they end with."""

from collections.abc import Iterator, Mapping

import numpy as np

from .. import arguments
from ..training.inputs import Inputs, samples
from ..training.trainer import Trainer
from .course import Event, sizes_of


class Unwatched:
    """A trainer's run over x (M, …), y (M, …), as `Watched` without an eye on it."""

    def __init__(self, trainer: Trainer, x: Inputs, y: np.ndarray, epochs: int):
        arguments.whole("epochs", epochs, 0)
        trainer.check(x, y)
        self.trainer, self.x, self.y, self.epochs = trainer, x, y, epochs
        self.most = epochs * -(-samples(x) // trainer.program.batch)

    def sizes(self) -> list[int]:
        """The mini-batches of the steps that were made."""
        return sizes_of([[0, self.trainer.step]], samples(self.x), self.trainer.program.batch)

    def told(self) -> dict:
        """Nothing that JSON could tell."""
        return {}

    def run(self) -> Iterator[Event]:
        """Train to the end, a step at a time. NonFiniteError as the trainer has it."""
        for progress in self.trainer.steps(self.x, self.y, self.epochs):
            yield Event(progress.step, progress.steps, progress.loss, None)

    def saved(self) -> tuple[dict[str, np.ndarray], dict]:
        """Nothing beside the trainer's own state."""
        return {}, {}

    def resume(self, arrays: Mapping[str, np.ndarray], course: Mapping) -> None:
        """Go on from `saved`; ValueError where there is more."""
        if arrays or course:
            raise ValueError("the saved run was watched, and this one is not")
