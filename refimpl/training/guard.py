"""Where a training meets a NaN or an infinity: the layer that made it, and the way back to weights that are good."""

from collections.abc import Iterable, Mapping

import numpy as np

from ..backends.finite import all_finite
from ..compiler.ir import Launch
from ..compiler.program import Program
from .runner import Runner


class NonFiniteError(ArithmeticError):
    """The loss or a gradient became NaN or infinite. step: the mini-batch in which, from 1; 0: it is not known."""

    def __init__(self, message: str, step: int = 0):
        super().__init__(message)
        self.step = step


class Guard:
    """Keeps a copy of the weights that training changes, with the counts of steps and updates that belong to them."""

    def __init__(self, program: Program, parameters: Mapping[str, np.ndarray]):
        changing = (name for name, b in program.step.parameters.items() if b.region == "state")
        self.parameters = parameters
        self.good = {name: np.empty_like(parameters[name]) for name in changing}
        self.step, self.updates = 0, dict[str, int]()

    def keep(self, runner: Runner, step: int, updates: Mapping[str, np.ndarray]) -> None:
        """The weights of now are those to go back to."""
        runner.fetch()
        for name, good in self.good.items():
            good[...] = self.parameters[name]
        self.step, self.updates = step, {name: int(count[0]) for name, count in updates.items()}

    def repaired(self, runner: Runner, updates: Mapping[str, np.ndarray]) -> bool:
        """Put the kept weights and counts of updates back where the weights of now are not finite; was it so?"""
        runner.fetch()
        if all(map(all_finite, self.parameters.values())):
            return False
        for name, good in self.good.items():
            self.parameters[name][...] = good
        runner.push()
        for name, count in self.updates.items():
            updates[name][0] = count
        return True


def first_bad(runner: Runner, sections: Iterable[str], n: int) -> Launch | None:
    """The first launch of these sections that writes a NaN or an infinity. They run again, up to it."""
    return next(filter(None, (runner.first_bad(section, n) for section in sections)), None)
