"""What arXiv 2007.03213 compares with: other choices of what enters a step. Both are `instances` of a Plan.

OHEM  online hard example mining (Shrivastava et al. 2016): everything runs forward, only the highest losses train
SMD   stochastic mini-batch dropping (Wang et al. 2019): a mini-batch is skipped at random
SMB   [paper] plain SGD with fewer iterations: fewer epochs, no rule

Our reading of OHEM: a first pass judges the whole mini-batch in inference mode, a second one trains on the chosen.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..kernels import random
from ..kernels.traced import part
from .registry import JUDGED_WHOLE, ONE_CHOICE, Statement, register_method

BLOCK = 1 << 16  # steps drawn for at a time


@register_method
@dataclass(frozen=True)
class HardExamples:
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
    steps_share: ClassVar[float] = 1.0  # of the steps is not skipped
    sections: ClassVar[tuple[str, ...]] = ("judge",)

    def __post_init__(self):
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be a share above 0 and at most 1, got {self.keep}")

    def count(self, n: int) -> int:
        """Instances of a mini-batch of n that train."""
        return part(self.keep, n)

    def fewest(self, n: int) -> int:
        """Instances that a step trains on at least, of a mini-batch of n."""
        return self.count(n)

    def for_net(self, graph, size):
        """It is the same for every net."""
        return self

    def updates(self, total: int, seed: int) -> int:
        """Updates of a run of `total` mini-batches: one each."""
        return total

    def samples(self, n: int) -> dict[str, int]:
        """Instances of each section for a mini-batch of n."""
        return {"judge": n, **dict.fromkeys(("forward", "backward", "update"), self.count(n))}

    def over(self, n: int, steps: int, losses: np.ndarray | None = None) -> "dict[str, HardExamples]":
        """`low`, `mid` and `high` of a run: the same rule, for its samples are exact."""
        return dict.fromkeys(("low", "mid", "high"), self)

    def memory(self) -> dict[str, np.ndarray]:
        """It remembers nothing between steps."""
        return {}

    def step(self, trainer, x: np.ndarray, y: np.ndarray, total: int, everything: bool = False) -> float:
        """One step on a mini-batch; the loss of the instances that trained. everything: let all of them."""
        n = len(x)
        trainer.fill(trainer.runner, x)
        trainer.put(y, "judge.")
        order = np.argsort(-trainer.judge(n, "judge."), kind="stable")
        chosen = np.sort(order[: n if everything else self.count(n)])
        trainer.put(y[chosen], chosen=chosen)
        return trainer.learn(len(chosen), total)


@register_method
@dataclass(frozen=True)
class RandomSkip:
    """SMD: each mini-batch is skipped with probability `skip`. ValueError where it is not from 0 to below 1."""

    skip: float = 0.5

    method: ClassVar[str] = "random-skip"
    states: ClassVar[Statement] = Statement(
        "instances", 30, "random-skip:skip=0.5", {"skip": float}, refuses={"instances": ONE_CHOICE}
    )  # fmt: skip
    priced: ClassVar[tuple[str, ...]] = ("skip",)  # settings that costs depend on
    sections: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        if not 0 <= self.skip < 1:
            raise ValueError(f"skip must be a probability from 0 to below 1, got {self.skip}")

    @property
    def steps_share(self) -> float:
        """Expected share of the steps that are not skipped."""
        return 1 - self.skip

    def fewest(self, n: int) -> int:
        """Instances that a step trains on at least, of a mini-batch of n, where it is not skipped."""
        return n

    def for_net(self, graph, size):
        """It is the same for every net."""
        return self

    def updates(self, total: int, seed: int) -> int:
        """Updates of a run of `total` mini-batches: exactly those that its seed does not skip."""
        return total - sum(
            int(np.sum(self._skips(seed, np.arange(start, min(start + BLOCK, total)))))
            for start in range(0, total, BLOCK)
        )

    def _skips(self, seed: int, steps: np.ndarray) -> np.ndarray:
        """Is each of steps (n,) skipped?"""
        return random.uniform_of_steps(seed, random.SKIP, steps) < self.skip

    def samples(self, n: int) -> dict[str, int]:
        """A mini-batch that is not skipped trains whole."""
        return {}

    def over(self, n: int, steps: int, losses: np.ndarray | None = None) -> "dict[str, RandomSkip]":
        """`mid`, and `low` and `high` around it: skipping what 19 of 20 runs of `steps` mini-batches lie between."""
        spread = 1.96 * math.sqrt(self.skip * (1 - self.skip) / max(1, steps))
        most = math.nextafter(1, 0)
        return {
            "low": replace(self, skip=min(most, self.skip + spread)),
            "mid": self,
            "high": replace(self, skip=max(0.0, self.skip - spread)),
        }

    def memory(self) -> dict[str, np.ndarray]:
        """It remembers nothing between steps."""
        return {}

    def step(self, trainer, x: np.ndarray, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """One step on a mini-batch, or none; its loss, None where it is skipped. everything: never skip."""
        if self._skips(trainer.seed, np.array([trainer.step]))[0] and not everything:
            return None
        trainer.fill(trainer.runner, x)
        return trainer.learn_from(y, total)
