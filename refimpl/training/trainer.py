"""Train the model of a compiled program. Nothing here decides what is computed."""

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import arguments
from ..backends.finite import all_finite
from ..compiler.ir import Moment
from ..compiler.lower import BACKENDS
from ..compiler.program import Program
from ..data.on_demand import OnDemand
from ..kernels import random
from ..models.written import named, written
from ..storage import checkpoint
from . import inputs, state
from .evaluator import Evaluator, inference
from .guard import Guard, NonFiniteError, first_bad
from .inputs import Inputs, samples
from .learnt_constants import learn_constants
from .runner import ALONE, GUARD, Runner, new_block
from .state import State, initial
from .under_way import Findings, UnderWay

__all__ = ["GUARD", "NonFiniteError", "Progress", "Runner", "Trainer", "initial", "new_block"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step: steps done, steps in all, the step's loss.

    On a device that runs beside the host steps may be under way: then it is the last loss that is known.
    """

    step: int
    steps: int
    loss: float


class Given(NamedTuple):
    """What a net is told of a mini-batch: labels or targets y, and where it asks the instances chosen, both (n,)."""

    y: np.ndarray
    chosen: np.ndarray | None


class Trainer:
    """Trains a program's model. Parameters start from the graph's weights, else from the seed.

    step: mini-batches looked at. updates: net (its prefix, "" for the main one), and residual block where steps leave
    some out → how often its parameters were updated. Optimizers, schedules, warm-up and the channels of sparse update
    go by updates, so a mini-batch that is skipped, or of which nothing is chosen, leaves them where they are. A run is
    what one call of `fit` makes, or `steps` from where `restart` was called last, else from the first step on.

    Where the backend's device runs beside the host, steps that `steps` made may be under way, up to `backend.ahead` of
    them. Whatever is asked of the trainer then waits for them (`settle`): `losses`, predictions, its state, a file.
    Only `step`, `updates` and `skipped` count them already. So a NonFiniteError may come that many steps later than its
    own, which it names, and the trainer stands before that step, as it would on the CPU.

    Every call sets the threads that it needs. A trainer works in one block of memory: one thread at a time may use it,
    and a second one is refused with RuntimeError; trainers of their own may run in threads of their own. It can be
    neither copied nor pickled (TypeError), and it cannot go on in a process forked after kernels ran (RuntimeError).
    """

    def __init__(self, program: Program, seed: int = 0, block: np.ndarray | None = None):
        """seed: of new weights, order of samples and draws. ValueError for weights that do not fit the graph, or no
        Program.

        block: memory to work in, such as `Trainer.runner.block` of one of the same program that waits meanwhile.
        """
        arguments.offers("program", program, "peak_bytes", "a Program, such as compile(graph, plan, batch) makes")
        arguments.whole("seed", seed, 0)
        self.program, self.seed = program, seed
        self.backend = BACKENDS[program.backend]
        self.parameters = initial(program, seed)
        infers = inference(program)
        if block is None:
            most = max(program.peak_bytes, infers.peak_bytes)  # the two never run at the same time
            block = new_block(most, self.backend)
        self.runner = Runner(program, self.parameters, block, seed)
        self.made = self.runner.made  # blocks left out → what the steps that did so ran
        self.strategy = program.plan.strategy
        self.strategy.check_weights(program, self.parameters)
        self.evaluator = Evaluator(infers, self.runner)
        self.memory = self.strategy.memory()  # what the strategy remembers between steps
        prefixes = sorted(program.graphs, key=len, reverse=True)
        self.trained = {prefix: [] for prefix in prefixes}  # net → its trained parameters
        for name in program.step.gradients:
            self.trained[next(prefix for prefix in prefixes if name.startswith(prefix))].append(name)
        self.factor = 1.0  # on every learning rate, for who watches a run; no part of its state
        self.step = 0  # mini-batches looked at
        self.updates = {name: np.zeros(1, np.int64) for name in (*prefixes, *(block.name for block in program.blocks))}
        self.begun = np.zeros(1, np.int64)  # mini-batches before the run at hand
        self.before = {name: np.zeros(1, np.int64) for name in self.updates}  # updates before it
        self._losses: list[float] = []
        self._given: dict[str, Given] = {}  # net → what it is told of the current step's mini-batch
        self._batch: Any = None  # the mini-batch of the current step
        self._planned: dict[int, int] = {}  # mini-batches → updates that are planned of so many
        self._lock, self._run = threading.Lock(), threading.Lock()  # of a step, and of a whole `fit`
        self._under_way = UnderWay(self.runner)
        self.guard = Guard(program, self.parameters)
        self.guard.keep(self.runner, self.step, self.updates)

    @property
    def losses(self) -> list[float]:
        """The loss of each step so far that `steps` made."""
        self.settle()
        return self._losses

    @property
    def known(self) -> list[float]:
        """`losses` as far as they are known; it waits for none."""
        return self._losses

    @property
    def under_way(self) -> int:
        """Steps whose losses are not known yet."""
        return len(self._under_way.steps)

    def settle(self) -> None:
        """Wait for the steps that are under way and look at what they found. NonFiniteError as of the first bad one."""
        if self._under_way.steps:
            with self._alone(), self.backend.work(self.program.threads):
                self._settle()

    @property
    def skipped(self) -> int:
        """Mini-batches of which nothing was learnt."""
        return self.step - int(self.updates[""][0])

    def fit(self, x: Inputs, y: np.ndarray, epochs: int) -> list[float]:
        """Train `epochs` more passes over x (M, H, W, C) and y (M,); the loss of each step so far.

        As in Keras every call trains on, from the weights that are there. Learning-rate schedules, warm-up and the
        stages of sparse update begin anew and end with the call; the optimizer's moments, the orders of samples, the
        cycles of channels and every other draw go on, so that at a constant rate two calls give the bits of one of as
        many passes. `steps` finishes a run that was interrupted. y: class numbers, whole; of a plan with the loss mse
        the targets. Where the choice of instances left none for a step, its loss is that of the step before.
        """
        self._check_run(x, y, epochs)
        with self._alone(self._run):
            self.restart()
            for _ in self.steps(x, y, epochs):
                pass
        return self.losses

    def restart(self) -> None:
        """Let a run begin with the next step: its schedules go by what is trained from here on, as do its passes."""
        self.settle()
        with self._alone():
            self.begun[0] = self.step
            for name, count in self.updates.items():
                self.before[name][:] = count

    def steps(self, x: Inputs, y: np.ndarray, epochs: int) -> Iterator[Progress]:
        """Train the run at hand until it has made `epochs` passes in all, one step at a time.

        What it has made of them already, before it was resumed too, is not made again.
        """
        self._check_run(x, y, epochs)
        self.settle()
        batch, begun = self.program.batch, int(self.begun[0])
        per_epoch = -(-samples(x) // batch)
        total, passes = begun + epochs * per_epoch, -(-begun // per_epoch)
        with self.backend.session():
            shuffled = None
            while self.step < total:
                with self._alone(), self.backend.work(self.program.threads):
                    epoch, i = divmod(self.step - begun, per_epoch)
                    if epoch != shuffled:
                        order = random.permutation(self.seed, random.SHUFFLE, passes + epoch, samples(x))
                        shuffled = epoch
                        self.guard.keep(self.runner, self.step, self.updates)
                    chosen = order[i * batch : (i + 1) * batch]
                    self._make(partial(self._batch_of, x, y, chosen, self.step), total)
                    if i == per_epoch - 1 or self.under_way == self.backend.ahead:
                        self._settle()
                yield Progress(self.step, total, self.known[-1])

    def _batch_of(self, x: Inputs, y: np.ndarray, chosen: np.ndarray, step: int) -> tuple[Any, np.ndarray]:
        """The mini-batch of some samples, as it is drawn for a step."""
        return self._drawn(x, chosen, step), y[chosen]

    def _drawn(self, x: Inputs, chosen: np.ndarray, step: int) -> Any:
        if isinstance(x, Mapping):
            return {name: self._drawn(values, chosen, step) for name, values in x.items()}
        return x.draw(chosen, self.seed, step) if isinstance(x, OnDemand) else x[chosen]

    def _make(self, batch: Callable[[], tuple[Any, np.ndarray]], total: int) -> None:
        """Make the next step of a run; where the host need not wait for it, it is under way then.

        The first loss is waited for: from then on one is known.
        """
        if self.backend.ahead == 1 or self.strategy.waits or not self._losses:
            self._losses.append(self._step(*batch(), total))
            return
        self._under_way.begin(self.step, self.updates)
        try:
            self._step(*batch(), total)
            self._under_way.end(batch, total, self.factor)
        finally:
            self._under_way.open = None

    def _settle(self) -> None:
        """As `settle`, of who works with the trainer already."""
        steps = self._under_way.steps
        if not steps:
            return
        self.backend.synchronise()
        factor, dropped = self.factor, self.runner.dropped
        good = all(step.findings is None or self._good(step.findings, step.dropped) for step in steps)
        if good:
            for step in steps:
                self._losses.append(float(step.findings.loss[0]) if step.findings else self._losses[-1])
            self.runner.leave_out(dropped)
        self._under_way.forget()
        if good:
            return
        self.step = self._under_way.back(self.updates)
        try:
            for step in steps:
                self.factor = step.factor
                self._losses.append(self._step(*step.batch(), step.total))
        finally:
            self.factor = factor
            self.runner.leave_out(dropped)

    def _good(self, findings: Findings, dropped: frozenset[str]) -> bool:
        """Is all finite that a step found, which left out these residual blocks?"""
        self.runner.leave_out(dropped)
        flagged = findings.flags is not None and self.runner.flagged("", self.trained[""], findings.flags)
        return math.isfinite(findings.loss[0]) and not flagged

    @contextmanager
    def _alone(self, lock: Any = None) -> Iterator[None]:
        """RuntimeError where another thread, or a call that this one interrupted, is at work with this trainer.

        lock: of what is done alone, default that of a step.
        """
        lock = lock or self._lock
        if not lock.acquire(blocking=False):
            raise RuntimeError(
                "this Trainer is at work in another call: use it from one thread at a time, or make one for each thread"
            )
        try:
            yield
        finally:
            lock.release()

    def train_step(self, x: np.ndarray, y: np.ndarray, total: int) -> float:
        """One step on n ≤ batch samples; returns the loss. NonFiniteError, before any update, names the layer.

        total: the mini-batch with which the run ends, which schedules go by. ValueError for data that do not fit the
        program. Where the plan's choice of instances leaves none for a step, its loss is that of the step before.
        """
        self._check_batch(x, y)
        self.settle()
        with self._alone(), self.backend.work(self.program.threads):
            return self._step(x, y, total)

    def _check_run(self, x: Inputs, y: np.ndarray, epochs: int) -> None:
        """ValueError for samples or passes that no run of this program takes."""
        self._trains()
        self.check(x, y)
        arguments.whole("epochs", epochs, 0)
        inputs.check_batches(self.program, samples(x))

    def _trains(self) -> None:
        """ValueError for a program that only infers."""
        if not self.program.training:
            raise ValueError(
                f"this program of {self.program.graph.name} only infers: compile it with a Plan, such as ri.Plan(), to "
                "train it"
            )

    def _check_batch(self, x: np.ndarray, y: np.ndarray) -> None:
        self._trains()
        self.check(x, y)
        if samples(x) > self.program.batch:
            raise ValueError(
                f"a step takes up to {self.program.batch} samples, as the program says, but x has {samples(x)}"
            )

    def _step(self, x: np.ndarray, y: np.ndarray, total: int) -> float:
        if self.step == 0:
            learn_constants(self, x, y)
        loss = self._learn(x, y, total)
        if loss is None:
            loss = self._losses[-1] if self._losses else 0.0
        self.step += 1
        return loss

    def rehearse(self, x: np.ndarray, y: np.ndarray) -> None:
        """Run every section on all of (x, y), n ≤ batch samples: the most that a step can ask of the arena."""
        self._check_batch(x, y)
        self.settle()
        with self._alone(), self.backend.work(self.program.threads):
            self.runner.leave_out(frozenset())
            self._learn(x, y, 1, everything=True)

    def _learn(self, x: np.ndarray, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """Learn from what the plan chooses of a mini-batch; the loss, None where that is nothing."""
        self._batch = x
        try:
            return self.strategy.run(self, x, y, total, everything)
        finally:
            self._batch = None
            self._given.clear()

    def put(self, y: np.ndarray, net: str = "", chosen: np.ndarray | None = None) -> None:
        """Tell a net's next section the labels or targets y (n,) and, where it asks, the instances of the mini-batch.

        ValueError from the section where the instances chosen (n,) are not in the batch.
        """
        self._given[net] = Given(y, chosen)
        self._place(net)

    def _place(self, net: str) -> None:
        y, chosen = self._given[net]
        labels = "labels" if f"{net}labels" in self.runner.program.step.host_writes else "target"
        self.runner.write(f"{net}{labels}", len(y), y)
        if chosen is not None:
            self.runner.write(f"{net}chosen", len(y), chosen)

    def again(self, net: str = "") -> None:
        """Put the mini-batch in place again, and what a net was told of it, or else the main one, for its next section.

        The arena holds other things by now.
        """
        inputs.fill(self.runner, self._batch)
        if net not in self._given:
            self._given[net] = self._given[""]
        self._place(net)

    def learn(self, n: int, total: int, net: str = "") -> float:
        """Forward, backward and update of a net on n samples that are in place; returns the loss.

        NaN stands for a loss that is not known yet, of a step that is under way.
        """
        runner = self.runner
        self.begin(net, n, total)
        runner.run(f"{net}forward", n)
        if self._under_way.open:
            self._under_way.take(True, n)
            runner.run("backward", n)
            self._under_way.take(False, n)
            runner.run("update", n)
            self.updated()
            return math.nan
        loss = float(runner.read(f"{net}loss", n)[0])
        if not math.isfinite(loss):
            before = f" (it was {self._losses[-1]:.4g} before)" if self._losses and not net else ""
            what = f"the loss is {loss} at step {self.step + 1}{before}"
            self.stop(what, net, n, total, "forward")
        runner.run(f"{net}backward", n)
        if name := runner.not_finite(net, self.trained[net], n):
            what = f"the gradient of {name} is not finite at step {self.step + 1}"
            self.stop(what, net, n, total, "forward", "backward")
        runner.run(f"{net}update", n)
        self.updated(net)
        return loss

    def updated(self, net: str = "") -> None:
        """Count an update of a net, and of the residual blocks that are there."""
        self.updates[net] += 1
        for block in self.program.blocks if not net else ():
            self.updates[block.name] += block.name not in self.runner.dropped

    def judge(self, n: int, net: str) -> np.ndarray:
        """Run a net's section that only infers, on n samples that are in place; the loss of each (n,)."""
        self.runner.run(net.removesuffix("."), n)
        losses = self.runner.read(f"{net}losses", n)
        if not all_finite(losses):
            self.stop(f"the loss of an instance is not finite at step {self.step + 1}", net, n, 1, "")
        return losses if losses.ndim == 1 and len(losses) == n else losses.reshape(n, -1).mean(1)

    def begin(self, net: str, n: int, total: int) -> None:
        """Fill what the host tells a net's sections before a step on n samples: rate, number of the update, seed."""
        for name, scalar in self.runner.program.step.scalars.items():
            if scalar.net == net:
                self.runner.write(name, n, scalar.value(self.moment(scalar.block or net, total)))

    def moment(self, of: str, total: int) -> Moment:
        """What is known before a step of a run that ends after mini-batch `total`. of: a net, or a residual block."""
        updates, before = (int(counts[of][0]) for counts in (self.updates, self.before))
        return Moment(updates, self.planned(total), self.seed, self.factor, before)

    def planned(self, total: int) -> int:
        """Updates that the run at hand makes until mini-batch `total`, as far as the plan tells that ahead."""
        ends = int(self.begun[0]), total
        if self._planned.keys() != set(ends):
            self._planned = {end: self.strategy.updates(end, self.seed) if end else 0 for end in ends}
        return self._planned[total] - self._planned[ends[0]]

    def stop(self, what: str, net: str, n: int, total: int, *phases: str) -> None:
        """Find the first bad layer in these phases of a net, put the last good weights back, raise NonFiniteError.

        The sections run again, launch by launch, from what the host gave them: the arena holds other things by now.
        """
        self.again(net)
        self.begin(net, n, total)
        bad, step = first_bad(self.runner, [(net + phase).removesuffix(".") for phase in phases], n), self.step + 1
        if self.guard.repaired(self.runner, self.updates):
            self.step = self.guard.step
            del self._losses[self.step :]
        raise NonFiniteError(
            f"{what}, first in layer {bad.covers[-1].node if bad else 'loss'}; a lower lr may help; the weights of "
            f"step {self.step} are kept",
            step,
        )

    def predict(self, x: Inputs) -> np.ndarray | dict[str, np.ndarray]:
        """Outputs (M, …) of x (M, …) in inference mode, in the program's dtype; by name where the graph has several."""
        outputs = self._outputs(x)
        return outputs if len(outputs) > 1 else outputs[self.program.graph.output]

    def _outputs(self, x: Inputs) -> dict[str, np.ndarray]:
        self.check(x)
        self.settle()
        with self._alone(), self.backend.work(self.program.threads):
            self.evaluator.weights(bool(self.updates[""][0]))
            return self.evaluator.outputs(x)

    def evaluated(self) -> dict[str, np.ndarray]:
        """The parameters of the net that is evaluated: those that train, scaled where steps left blocks out."""
        self.settle()
        return self.evaluator.weights(bool(self.updates[""][0]))

    def evaluate(self, x: Inputs, y: np.ndarray) -> float:
        """The main one of `measures`: the accuracy of a classifier, the mean squared error of a plan with that loss."""
        return next(iter(self.measures(x, y).values()))

    def measures(self, x: Inputs, y: np.ndarray) -> Mapping[str, Any]:
        """How well the outputs of x (M, …) fit y (M, …): what the file of the loss's operator measures, by name.

        Of a classifier: accuracy, mean_recall, mean_iou, and by class recall, iou and confusion.
        """
        self.check(x, y)
        return self.evaluator.measures(self._outputs(x)[self.program.graph.output], y)

    def fill(self, runner: Runner, x: Inputs) -> None:
        """Copy samples into the arena."""
        inputs.fill(runner, x)

    def check(self, x: Inputs, y: np.ndarray | None = None) -> None:
        """ValueError with one sentence where data do not fit the program."""
        inputs.check(self.program, x, y)

    def thin(self, section: str) -> str | None:
        """The first batch norm of a section that takes statistics of one value a sample: it needs two samples."""
        return inputs.thin(self.program, section)

    def save(self, path: str | os.PathLike, first: bool = False, **more: str) -> None:
        """Write the weights as safetensors: beside, flushed, then renamed; each in its dtype.

        Scales and zero points are arrays like the others; `quantized` in the metadata (JSON) says of each quantized
        array their names and the axis. `graph` (`models.written`) says all of a net that no name would build again: a
        quantized one, one of the user's own. `classes` (JSON) are the names of the graph's classes, where it has some.
        first: the weights that training began with. more: metadata beside those of the model.
        """
        self.settle()
        graph = self.program.graph
        notes = {"model": graph.name, "size": f"{self.program.size}", "options": json.dumps(graph.options)}
        if graph.classes:
            notes["classes"] = json.dumps(graph.classes)
        with self._alone():
            weights = initial(self.program, self.seed) if first else self.evaluated()
            scales = {name: parameter.quantized for name, parameter in graph.parameters.items()}
            if quantized := {name: asdict(q) for name, q in scales.items() if q}:
                notes["quantized"] = json.dumps(quantized)
            if quantized or not named(graph):
                notes["graph"] = written(graph)
            checkpoint.save(path, {name: weights[name] for name in graph.parameters}, notes | more)

    def resume_arrays(self) -> dict[str, np.ndarray]:
        """Everything that a later run needs beside the step number: parameters, optimizer arrays, rules' memory."""
        self.settle()
        return state.arrays(self)

    def resume(self, arrays: Mapping[str, np.ndarray], step: int, losses: list[float]) -> None:
        """Go on from arrays of `resume_arrays` after `step` steps. ValueError, before any change, for others."""
        self.settle()
        state.check(self, arrays, step)
        with self._alone():
            state.put(self, State(arrays, step, losses))

    def state(self) -> State:
        """A copy of everything that training changes. `restore` goes on from it, as often as one likes.

        So one trainer, with its program and its memory, can train many nets in turn.
        """
        arrays = {name: array.copy() for name, array in self.resume_arrays().items()}
        return State(arrays, self.step, list(self._losses))

    def restore(self, state: State) -> None:
        """Go on from a `state` of this trainer or of another one of the same program. ValueError for others."""
        self.resume(state.arrays, state.step, state.losses)

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} {ALONE}")
