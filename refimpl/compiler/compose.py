"""Put the step of a plan together: its strategy asks a composer for the nets that it is made of, and joins them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from ..graph import INPUT, Graph
from ..plan.plan import Backprop, Plan
from .derive import Derivation, Operand
from .ir import PHASES, Buffer, Step


@dataclass(frozen=True)
class Composer:
    """Derives the nets of a step.

    stream: the mini-batch that several nets of the step read. chosen: do the nets that train get instances of it that
    the host chooses, and tell the loss of each?
    """

    graph: Graph
    plan: Plan
    batch: int
    size: tuple[int, int] | None
    dtype: object
    stream: Buffer | None = None
    chosen: bool = False

    def sharing(self) -> "Composer":
        """The same for a step whose nets all read one mini-batch. ValueError for a net of several inputs."""
        if self.stream is not None:
            return self
        if self.graph.inputs != (INPUT,):
            inputs = ", ".join(self.graph.inputs)
            raise ValueError(f"nets can share an input called {INPUT}, but {self.graph.name} has {inputs}")
        shape = self.graph.shapes(self.batch, self.size)[INPUT]
        dtype = np.dtype(self.graph.tensors[INPUT].dtype or self.dtype)
        return replace(self, stream=Buffer(INPUT, shape, dtype, "arena", batched=1))

    def choosing(self) -> "Composer":
        """The same for a step that chooses instances of its mini-batch."""
        return replace(self.sharing(), chosen=True)

    def net(
        self, training: bool = True, prefix: str = "", section: str = "", chosen: bool | None = None,
        parameters: Mapping[str, Buffer] | None = None, operand: Operand | None = None, plan: Plan | None = None,
    ) -> Derivation:  # fmt: skip
        """The main net. prefix, section, parameters, operand: as `Derivation` takes them.

        chosen, plan: default the composer's.
        """
        return Derivation(
            self.graph, plan or self.plan, self.batch, self.size, self.dtype, training, prefix, section, parameters,
            self.stream, self.chosen if chosen is None else chosen, operand,
        )  # fmt: skip

    def other(
        self, graph: Graph, prefix: str, training: bool = True, section: str = "", chosen: bool = False,
        parameters: Mapping[str, Buffer] | None = None, optimizer=None, **settings,
    ) -> Derivation:  # fmt: skip
        """Another net on the same mini-batch, with an optimizer and the settings of a Plan of its own."""
        plan = Plan(**settings, step=Backprop(optimizer)) if optimizer else Plan(**settings)
        return Derivation(
            graph, plan, self.batch, self.size, self.dtype, training, prefix, section, parameters, self.stream, chosen
        )

    def joined(self, *steps: Step) -> Step:
        """One step of several, in their order, on one mini-batch. AssertionError where two of them share a name."""
        joined = Step(host_writes={INPUT: self.stream} if self.stream else {})
        for step in steps:
            for field in fields(step):
                entries, further = getattr(joined, field.name), getattr(step, field.name)
                shared = entries.keys() & further.keys()
                if common := [name for name in shared if entries[name] is not further[name]]:
                    raise AssertionError(f"two nets of a step have {field.name} called {', '.join(common)}")
                entries.update(further)
        return joined


def derive(graph: Graph, plan: Plan | None, batch: int, size: tuple[int, int] | None, dtype) -> Step:
    """The logical calls of a training step, or with `plan=None` of inference. ShapeError where a size does not fit."""
    if plan is None:
        step = Composer(graph, Plan(), batch, size, dtype).net(training=False).build()
        step.calls |= {phase: [] for phase in PHASES[1:]}
        return step
    return plan.strategy.derive(Composer(graph, plan, batch, size, dtype))
