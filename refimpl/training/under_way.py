"""Steps that are under way on a device that runs beside the host: queued, and not known to be good yet.

Within such a step the host reads nothing. Its loss and the flags of its gradients are copied into memory of the host,
a place for each step, and when `backend.ahead` steps are under way, or somebody asks, the host waits once and looks at
all of them. What training changes is copied, on the device, before the first of them: where one is not finite the copy
is put back, the steps before it are made again, which gives the same bits, and then that one, each of them looked at as
on the host's own backends. So the error, the step that it names and the weights that are kept are theirs.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..compiler.arena import end_to_end
from .runner import Runner


class Kept:
    """A copy of the state that a runner's program owns, in the memory of its backend."""

    def __init__(self, runner: Runner):
        self.backend = runner.backend
        state = [b for b in runner.owned if b.region == "state"]
        starts, nbytes = end_to_end(b.nbytes for b in state)
        memory = self.backend.allocate(max(1, nbytes))
        self.pairs = [  # (the program's own array, its copy), both flat
            (runner.array(b).reshape(-1), self.backend.view(memory, start, b.nbytes, b.dtype))
            for b, start in zip(state, starts, strict=True)
        ]
        if runner.state is not None:  # one piece, that `end_to_end` has made of the same arrays
            self.pairs = [(runner.state, memory)]

    def take(self) -> None:
        """Copy what the arrays hold now."""
        for own, copy in self.pairs:
            self.backend.copy(copy, own)

    def put(self) -> None:
        """Let the arrays hold that again."""
        for own, copy in self.pairs:
            self.backend.copy(own, copy)


class Findings(NamedTuple):
    """Memory of the host for what a step finds: its loss (1,), and a flag for each slice of its gradients, if any."""

    loss: np.ndarray
    flags: np.ndarray | None


class Attempt(NamedTuple):
    """A step that is under way.

    batch: draws its mini-batch, x and y, again; total, factor: of the run, and on its learning rate; dropped: residual
    blocks that it left out; findings: None where nothing was to be learnt of it.
    """

    batch: Callable[[], tuple[Any, np.ndarray]]
    total: int
    factor: float
    dropped: frozenset[str]
    findings: Findings | None


class UnderWay:
    """The steps of a trainer that are under way, and where it stood before the first of them."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self.steps: list[Attempt] = []
        self.free: list[Findings] = []  # places for those that come
        self.open: Findings | None = None  # that of the step which is being queued
        self.taken = False  # did it put anything there?
        self.kept: Kept | None = None
        self.step, self.updates = 0, dict[str, int]()

    def begin(self, step: int, updates: Mapping[str, np.ndarray]) -> None:
        """A step comes, the first one after `step` mini-batches, or one behind others."""
        if not self.steps:
            if self.kept is None:
                self.kept = Kept(self.runner)
            self.kept.take()
            self.step, self.updates = step, {name: int(count[0]) for name, count in updates.items()}
        self.open, self.taken = self.free.pop() if self.free else self._place(), False

    def _place(self) -> Findings:
        reads, made = self.runner.program.step.host_reads, self.runner.backend.waiting
        flags = reads.get("finite")
        return Findings(made((1,), reads["loss"].dtype), None if flags is None else made(flags.shape, flags.dtype))

    def take(self, loss: bool, n: int) -> None:
        """Queue a copy of the loss, or else of the flags of gradients, of the step that is being queued."""
        assert self.open is not None
        name, to = ("loss", self.open.loss) if loss else ("finite", self.open.flags)
        if to is not None:
            self.runner.backend.copy(to, self.runner.host(name, n))
        self.taken = True

    def end(self, batch: Callable[[], tuple[Any, np.ndarray]], total: int, factor: float) -> None:
        """All of the step is queued."""
        findings, self.open = self.open, None
        assert findings is not None
        if not self.taken:
            self.free.append(findings)
        self.steps.append(Attempt(batch, total, factor, self.runner.dropped, findings if self.taken else None))

    def forget(self) -> None:
        """There is nothing under way any more."""
        self.free += [step.findings for step in self.steps if step.findings is not None]
        self.steps, self.open = [], None

    def back(self, updates: Mapping[str, np.ndarray]) -> int:
        """Let all be as it was before the first of them, and the counts of updates; the mini-batches before it."""
        assert self.kept is not None
        self.kept.put()
        for name, count in self.updates.items():
            updates[name][0] = count
        return self.step
