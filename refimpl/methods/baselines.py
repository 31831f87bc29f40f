"""What arXiv 2007.03213 compares with: other choices of what enters a step. Both are `instances` of a Plan.

OHEM  online hard example mining (Shrivastava et al. 2016): everything runs forward, only the highest losses train
SMD   stochastic mini-batch dropping (Wang et al. 2019): a mini-batch is skipped at random
SMB   [paper] plain SGD with fewer iterations: fewer epochs, no rule

Our reading of OHEM: a first pass judges the whole mini-batch in inference mode, a second one trains on the chosen.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import arguments
from ..kernels import random
from ..kernels.traced import part
from .registry import JUDGED_WHOLE, ONE_CHOICE, Other, Pick, Statement, register_method
from .strategy import Modifier, Strategy, Turn

if TYPE_CHECKING:
    from ..compiler.compose import Composer
    from ..compiler.ir import Step
    from ..compiler.program import Program
    from ..training.trainer import Trainer

BLOCK = 1 << 16  # steps drawn for at a time


@register_method
@dataclass(frozen=True)
class HardExamples(Modifier):
    """OHEM: the share `keep` of each mini-batch with the highest losses trains. ValueError for another share."""

    keep: float = 0.1

    method: ClassVar[str] = "hard-examples"
    states: ClassVar[Statement] = Statement(
        "instances", 20, "hard-examples:keep=0.1", {"keep": float},
        refuses={
            "instances": ONE_CHOICE, "depth": JUDGED_WHOLE,
        },
    )  # fmt: skip
    priced: ClassVar[tuple[str, ...]] = ("keep",)  # settings that costs depend on

    def __post_init__(self):
        arguments.numbers(keep=self.keep)
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be a share above 0 and at most 1, got {self.keep}")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "HardExamples":
        """With any share."""
        return cls(pick(1, 19) / 20)

    def count(self, n: float) -> int:
        """Instances of a mini-batch of n that train."""
        return part(self.keep, n)

    def fewest(self, n: int) -> int:
        """Instances that a step trains on at least, of a mini-batch of n."""
        return self.count(n)

    def derive(self, composer: "Composer", inner: Strategy) -> "Step":
        """The net judges the whole mini-batch in inference mode, then trains on what was chosen."""
        composer = composer.choosing()
        main = inner.derive(composer)
        judge = composer.net(training=False, prefix="judge.", section="judge", chosen=False, parameters=main.parameters)
        return composer.joined(judge.build(losses=True), main)

    def schedule(self, program: "Program", n: float, inner: Strategy) -> tuple[Turn, ...]:
        """Everything is judged, `keep` of it trains."""
        return Turn("judge", n), *inner.schedule(program, self.count(n))

    def run(
        self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool, inner: Strategy
    ) -> float | None:  # fmt: skip
        """One step on a mini-batch; the loss of the instances that trained."""
        n = len(x)
        trainer.fill(trainer.runner, x)
        trainer.put(y, "judge.")
        order = np.argsort(-trainer.judge(n, "judge."), kind="stable")
        chosen = np.sort(order[: n if everything else self.count(n)])
        trainer.put(y[chosen], chosen=chosen)
        return inner.run(trainer, None, y[chosen], total, everything)


@register_method
@dataclass(frozen=True)
class RandomSkip(Modifier):
    """SMD: each mini-batch is skipped with probability `skip`. ValueError where it is not from 0 to below 1."""

    skip: float = 0.5

    method: ClassVar[str] = "random-skip"
    waits: ClassVar[bool] = False
    states: ClassVar[Statement] = Statement(
        "instances", 30, "random-skip:skip=0.5", {"skip": float}, refuses={"instances": ONE_CHOICE}
    )  # fmt: skip
    priced: ClassVar[tuple[str, ...]] = ("skip",)  # settings that costs depend on

    def __post_init__(self):
        arguments.numbers(skip=self.skip)
        if not 0 <= self.skip < 1:
            raise ValueError(f"skip must be a probability from 0 to below 1, got {self.skip}")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "RandomSkip":
        """With any probability."""
        return cls(pick(1, 19) / 20)

    def updates(self, total: int, seed: int) -> int:
        """Updates of a run of `total` mini-batches: exactly those that its seed does not skip."""
        return total - sum(
            int(np.sum(self._skips(seed, np.arange(start, min(start + BLOCK, total)))))
            for start in range(0, total, BLOCK)
        )

    def _skips(self, seed: int, steps: np.ndarray) -> np.ndarray:
        """Is each of steps (n,) skipped?"""
        return random.uniform_of_steps(seed, random.SKIP, steps) < self.skip

    def schedule(self, program: "Program", n: float, inner: Strategy) -> tuple[Turn, ...]:
        """What is not skipped, with its probability."""
        return tuple(turn._replace(times=turn.times * (1 - self.skip)) for turn in inner.schedule(program, n))

    def over(self, n: int, steps: int, losses: np.ndarray | None = None) -> "dict[str, RandomSkip]":
        """`mid`, and `low` and `high` around it: skipping what 19 of 20 runs of `steps` mini-batches lie between."""
        spread = 1.96 * math.sqrt(self.skip * (1 - self.skip) / max(1, steps))
        most = math.nextafter(1, 0)
        return {
            "low": replace(self, skip=min(most, self.skip + spread)),
            "mid": self,
            "high": replace(self, skip=max(0.0, self.skip - spread)),
        }

    def run(
        self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool, inner: Strategy
    ) -> float | None:  # fmt: skip
        """One step on a mini-batch, or none; its loss, None where it is skipped."""
        if self._skips(trainer.seed, np.array([trainer.step]))[0] and not everything:
            return None
        return inner.run(trainer, x, y, total, everything)
