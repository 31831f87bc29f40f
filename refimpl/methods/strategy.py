"""How a step is made: a strategy derives its sections, runs them, and says what it is expected to do.

`Plan.strategy` is the step of a plan: its `step`, such as `Backprop`, and around it what leaves residual blocks out and
what chooses the data that enter. Runner, price and printed ledger all go by `schedule`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ..graph import Graph
from .optim import SGD, Adam

if TYPE_CHECKING:
    from ..compiler.compose import Composer
    from ..compiler.ir import Call, Step
    from ..compiler.program import Program
    from ..plan.plan import Plan
    from ..training.trainer import Trainer

BOUNDS = ("low", "mid", "high")


@dataclass(frozen=True)
class Block:
    """A residual block: the node of its sum, the tensor that is its shortcut, its branch's nodes and the last one."""

    name: str
    shortcut: str
    nodes: frozenset[str]
    last: str


class Turn(NamedTuple):
    """What a step is expected to do with a section.

    samples: how many it runs on, a mean where the data decide. times: how often, a probability where chance decides.
    calls: the probability of each of its calls where the section runs, None where all of them always run.
    """

    section: str
    samples: float
    times: float = 1
    calls: "Mapping[Call, float] | None" = None

    def occurs(self, call: "Call") -> float:
        """How often a call of the section is expected in a step."""
        return self.times if self.calls is None else self.times * self.calls.get(call, 0)


class Strategy:
    """A way to make a step. One of its own states an `optimizer`, and at least `derive`, `run` and `schedule`."""

    method: ClassVar[str]  # of one that is a registered method, its name
    optimizer: SGD | Adam
    clip_norm: float | None = None  # what the norm of the gradient is clipped to
    form: ClassVar[str] = "scales"  # of the whole numbers that it trains: one of `surgery.for_step.FORMS`
    loss: ClassVar[str | None] = None  # the operator that computes the loss of the main net; None: the plan's

    @property
    def waits(self) -> bool:
        """Does the host go by what a step computes, beside its loss and the flags of its gradients?"""
        return True

    @property
    def attrs(self) -> Mapping[str, object]:
        """Attributes that passes of the nodes and of the loss take from it beside their own."""
        return {}

    @property
    def nets(self) -> dict[str, Graph]:
        """Nets beside the main one, by the prefix of their names."""
        return {}

    @property
    def quantizes(self) -> Mapping[str, Any] | None:
        """What the function of its form is told where a command makes whole numbers of a net first; None: none is."""
        return None

    def blocks(self, graph: Graph) -> tuple[Block, ...]:
        """Residual blocks that a step may leave out."""
        return ()

    def scales(self, graph: Graph) -> dict[str, float]:
        """Parameter → factor at evaluation, where it differs from the one that trains."""
        return {}

    def check_plan(self, plan: "Plan") -> None:
        """ValueError where other settings of a plan do not go with it."""

    def check_weights(self, program: "Program", parameters: Mapping[str, np.ndarray]) -> None:
        """ValueError where it could not train the weights that a run begins with."""

    def derive(self, composer: "Composer") -> "Step":
        """The logical calls of a step, in sections, in the longest order in which they run."""
        raise NotImplementedError

    def run(self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """One step on a mini-batch of a run of `total`; its loss, None where nothing was learnt.

        everything: let each section have the whole mini-batch, which is the most that the arena must hold.
        """
        raise NotImplementedError

    def schedule(self, program: "Program", n: float) -> tuple[Turn, ...]:
        """What a step on a mini-batch of n samples is expected to do, a turn for each section that it uses."""
        raise NotImplementedError

    def fewest(self, n: int) -> int:
        """Instances that a step trains on at least, of a mini-batch of n, where it trains."""
        return n

    def updates(self, total: int, seed: int) -> int:
        """Updates of a run of `total` mini-batches, as far as that is known ahead."""
        return total

    def memory(self) -> dict[str, np.ndarray]:
        """What it remembers between steps, by name."""
        return {}


@dataclass(frozen=True)
class Around(Strategy):
    """A strategy that a rule, `outer`, changes: what the rule does not say is that of `inner`."""

    outer: "Modifier"
    inner: Strategy

    @property
    def waits(self) -> bool:
        """Where one of both does."""
        return self.inner.waits or self.outer.waits

    @property
    def nets(self) -> dict[str, Graph]:
        """Those of both."""
        return self.inner.nets | self.outer.nets

    def blocks(self, graph: Graph) -> tuple[Block, ...]:
        """Those of both."""
        return (*self.inner.blocks(graph), *self.outer.blocks(graph))

    def scales(self, graph: Graph) -> dict[str, float]:
        """Those of both."""
        return self.inner.scales(graph) | self.outer.scales(graph)

    def check_weights(self, program: "Program", parameters: Mapping[str, np.ndarray]) -> None:
        """As the inner one has it."""
        self.inner.check_weights(program, parameters)

    def derive(self, composer: "Composer") -> "Step":
        """As the rule has it."""
        return self.outer.derive(composer, self.inner)

    def run(self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """As the rule has it."""
        return self.outer.run(trainer, x, y, total, everything, self.inner)

    def schedule(self, program: "Program", n: float) -> tuple[Turn, ...]:
        """As the rule has it."""
        return self.outer.schedule(program, n, self.inner)

    def fewest(self, n: int) -> int:
        """Of what the rule leaves."""
        return self.inner.fewest(self.outer.fewest(n))

    def updates(self, total: int, seed: int) -> int:
        """Of the mini-batches that the rule lets through."""
        return self.inner.updates(self.outer.updates(total, seed), seed)

    def memory(self) -> dict[str, np.ndarray]:
        """Of both."""
        return self.inner.memory() | self.outer.memory()


class Modifier:
    """A rule that changes a strategy, `inner`; by default it changes nothing.

    by_losses: does `over` go by the losses of some instances before the first step? waits: as that of a strategy.
    """

    method: ClassVar[str]
    by_losses: ClassVar[bool] = False
    waits: ClassVar[bool] = True

    @property
    def nets(self) -> dict[str, Graph]:
        """Nets beside the main one, by the prefix of their names."""
        return {}

    def for_net(self, graph: Graph, size: tuple[int, int]) -> "Modifier":
        """The rule for a net and its input size."""
        return self

    def blocks(self, graph: Graph) -> tuple[Block, ...]:
        """Residual blocks that a step may leave out."""
        return ()

    def scales(self, graph: Graph) -> dict[str, float]:
        """Parameter → factor at evaluation, where it differs from the one that trains."""
        return {}

    def derive(self, composer: "Composer", inner: Strategy) -> "Step":
        """The logical calls of a step."""
        return inner.derive(composer)

    def run(
        self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool, inner: Strategy
    ) -> float | None:  # fmt: skip
        """One step on a mini-batch; its loss, None where nothing was learnt."""
        return inner.run(trainer, x, y, total, everything)

    def schedule(self, program: "Program", n: float, inner: Strategy) -> tuple[Turn, ...]:
        """What a step on a mini-batch of n samples is expected to do."""
        return inner.schedule(program, n)

    def over(self, n: int, steps: int, losses: np.ndarray | None = None) -> "Mapping[str, Modifier]":
        """`low`, `mid` and `high`: the rule whose schedule is what is expected in a run of `steps` mini-batches of n.

        losses: those of some instances before the first step, where they are known.
        """
        return dict.fromkeys(BOUNDS, self)

    def fewest(self, n: int) -> int:
        """Instances that a step trains on at least, of a mini-batch of n, where it trains."""
        return n

    def updates(self, total: int, seed: int) -> int:
        """Mini-batches of `total` that are not skipped, as far as that is known ahead."""
        return total

    def memory(self) -> dict[str, np.ndarray]:
        """What it remembers between steps, by name."""
        return {}


def turns(sections: Sequence[str], samples: float) -> tuple[Turn, ...]:
    """A turn of each section on as many samples."""
    return tuple(Turn(section, samples) for section in sections)
