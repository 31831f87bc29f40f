"""Run a compiled program: one block of memory, views into it, and launches. Nothing here decides what is computed."""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numba
import numpy as np

from . import arguments, checkpoint, random
from .arena import ALIGN
from .calibrate import calibrate, orders
from .data.resized import Resized
from .gemm import single_threaded_blas
from .graph import INPUT
from .program import AtBatch, Buffer, Prefix, Program, compile

GUARD = 4096  # bytes on either side of the arena that nothing may touch
BLOCK = 1 << 16  # values drawn or checked at a time: NumPy makes arrays of all of them in between
REAL = "fiub"  # kinds of dtypes that samples may have
SHALLOW = 64  # compiled steps without some of the blocks that a trainer keeps


class NonFiniteError(ArithmeticError):
    """The loss or a gradient became NaN or infinite."""


class Runner:
    """A program with its memory: `run(section, n)` launches a section's kernels on the first n samples."""

    def __init__(
        self, program: Program, parameters: Mapping[str, np.ndarray], block: np.ndarray | None = None, seed: int = 0,
        whole: "Runner | None" = None,
    ):  # fmt: skip
        """parameters: name → array, used in place; block: bytes for the arena and its guards, else allocated.

        seed: of the random constants that the plan asks for. whole: runner of the step that leaves nothing out, for one
        that leaves blocks out: it works in the same memory.
        """
        self.program = program
        self.owned: dict[Buffer, np.ndarray] = {}
        for name, b in program.step.parameters.items():
            self.owned[b] = parameters[name]
        for name, b in program.step.state.items():
            self.owned[b] = whole.owned[whole.program.step.state[name]] if whole else np.zeros(b.shape, b.dtype)
        for name, c in program.step.constants.items():
            shared = whole and whole.owned[whole.program.step.constants[name].buffer]
            self.owned[c.buffer] = c.make(parameters, seed) if shared is None else shared
        block = whole.block if whole else block
        self.block = new_block(program.peak_bytes) if block is None else block
        self.arena = self.block[GUARD : GUARD + program.peak_bytes]
        self.made: Counter[tuple[str, int]] = Counter()  # (section, n) → how often its launches really ran
        self._prepared: dict[tuple[str, int], list[tuple[Callable, list]]] = {}
        self._views: dict[tuple[str, int], np.ndarray] = {}

    def array(self, buffer: Buffer, n: int | None = None) -> np.ndarray:
        """View of a buffer; of its first n samples where it holds a batch."""
        root = buffer.root
        if root.region == "arena":
            start = self.program.offsets[root]
            whole = self.arena[start : start + root.nbytes].view(root.dtype)
        else:
            whole = self.owned[root]
        count = math.prod(buffer.shape)
        view = whole.reshape(-1)[buffer.start : buffer.start + count].reshape(buffer.shape)
        return view if n is None or not buffer.batched else view[:n]

    def host(self, name: str, n: int) -> np.ndarray:
        """View of an array that the host fills or reads (`input`, `labels`, `lr`, `loss`, …), made once per n."""
        if (name, n) not in self._views:
            step = self.program.step
            self._views[name, n] = self.array((step.host_writes | step.host_reads)[name], n)
        return self._views[name, n]

    def run(self, section: str, n: int) -> None:
        """Launch every kernel of a section on the first n samples. After the first time nothing is allocated."""
        for function, args in self.prepared(section, n):
            function(*args)
        self.made[section, n] += 1

    def prepared(self, section: str, n: int) -> list[tuple[Callable, list]]:
        """Kernels with their arguments for n samples."""
        key = (section, n)
        if key not in self._prepared:
            launches = self.program.launches[section]
            self._prepared[key] = [(launch.function, [self.argument(a, n) for a in launch.args]) for launch in launches]
        return self._prepared[key]

    def argument(self, value, n: int):
        """A launch's argument at run time."""
        if isinstance(value, Buffer):
            return self.array(value, n)
        if isinstance(value, Prefix):
            return self.array(value.buffer)[: value.length(n)]
        if isinstance(value, AtBatch):
            return value.value(n)
        return value


def new_block(nbytes: int) -> np.ndarray:
    """Zeroed bytes for an arena of `nbytes` with a guard zone at both ends, aligned."""
    raw = np.zeros(nbytes + 2 * GUARD + ALIGN, np.uint8)
    start = -raw.ctypes.data % ALIGN
    return raw[start : start + nbytes + 2 * GUARD]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` Numba threads and a single-threaded BLAS inside; restore both on leaving. ValueError for too many."""
    most = numba.config.NUMBA_NUM_THREADS
    if count > most:
        raise ValueError(
            f"the program is compiled for {count} threads, but this process has {most}: compile it with at most "
            f"{most}, or set NUMBA_NUM_THREADS before the first import"
        )
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        with single_threaded_blas():
            yield
    finally:
        numba.set_num_threads(before)


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step: steps done, steps in all, the step's loss."""

    step: int
    steps: int
    loss: float


class Trainer:
    """Trains a program's model. Parameters start from the graph's weights, else from the seed."""

    def __init__(self, program: Program, seed: int = 0, block: np.ndarray | None = None):
        """seed: of new weights, order of samples and draws. ValueError for weights that do not fit the graph.

        block: memory to work in, such as `Trainer.whole.block` of one of the same program that waits meanwhile.
        """
        arguments.whole("seed", seed, 0)
        self.program, self.seed = program, seed
        self.parameters = initial(program, seed)
        inference = compile(
            program.graph, None, program.batch, program.size, None, program.backend, program.threads, program.dtype
        )
        if block is None:
            block = new_block(max(program.peak_bytes, inference.peak_bytes))  # the two never run at the same time
        self.whole = self.runner = Runner(program, self.parameters, block, seed)  # runner: that of the current step
        self._shallow: dict[frozenset[str], Runner] = {}  # blocks left out → runner, the one used last at the end
        self.made = {frozenset(): self.whole.made}  # blocks left out → what the steps that did so ran
        self.scales = program.plan.depth.scales(program.graph) if program.plan.depth else {}
        self._scaled = {name: self.parameters[name].copy() for name in self.scales}
        self.inference = Runner(inference, self.parameters | self._scaled, block)
        rule = program.plan.instances
        self.memory = rule.memory() if rule else {}  # what the choice of instances remembers
        prefixes = sorted(program.graphs, key=len, reverse=True)
        self.trained = {prefix: [] for prefix in prefixes}  # net → its trained parameters
        for name in program.step.gradients:
            self.trained[next(p for p in prefixes if name.startswith(p))].append(name)
        self.step = 0  # steps done
        self.losses: list[float] = []
        changing = (name for name, b in program.step.parameters.items() if b.region == "state")
        self._good = {name: np.empty_like(self.parameters[name]) for name in changing}  # weights to go back to
        self._snapshot()

    def fit(self, x: np.ndarray | Resized, y: np.ndarray, epochs: int) -> list[float]:
        """Train until `epochs` passes over x (M, H, W, C) and y (M,) are done in all; the loss of each step so far.

        A trainer that has done some of them goes on from there. y: class numbers, whole; of a plan with the loss mse
        the targets. Where the choice of instances left none for a step, its loss is that of the step before.
        """
        for _ in self.steps(x, y, epochs):
            pass
        return self.losses

    def steps(self, x: np.ndarray | Resized, y: np.ndarray, epochs: int) -> Iterator[Progress]:
        """Like `fit`, one step at a time, going on from the steps that are done already."""
        self.check(x, y)
        arguments.whole("epochs", epochs, 0)
        batch = self.program.batch
        per_epoch = -(-len(x) // batch)
        total = epochs * per_epoch
        self.check_batches(len(x))
        with threads(self.program.threads):
            shuffled = None
            while self.step < total:
                epoch, i = divmod(self.step, per_epoch)
                if epoch != shuffled:
                    order = random.permutation(self.seed, random.SHUFFLE, epoch, len(x))
                    shuffled = epoch
                    self._snapshot()
                chosen = order[i * batch : (i + 1) * batch]
                loss = self.train_step(self._drawn(x, chosen), y[chosen], total)
                self.losses.append(loss)
                yield Progress(self.step, total, loss)

    def _drawn(self, x: np.ndarray | Resized, chosen: np.ndarray) -> np.ndarray:
        return x.draw(chosen, self.seed, self.step) if isinstance(x, Resized) else x[chosen]

    def train_step(self, x: np.ndarray, y: np.ndarray, total: int) -> float:
        """One step on n ≤ batch samples; returns the loss. NonFiniteError, before any update, names the layer.

        ValueError for labels that are no class numbers: kernels index with them.

        Where the plan's choice of instances leaves none for a step, its loss is that of the step before.
        """
        self._check_labels(y)
        rule, depth = self.program.plan.instances, self.program.plan.depth
        if self.step == 0:
            calibrate(self, x, y)
        if depth:
            self.runner = self.runner_without(depth.dropped(self.program.blocks, self.seed, self.step))
        if rule:
            loss = rule.step(self, x, y, total)
            loss = loss if loss is not None else self.losses[-1] if self.losses else 0.0
        else:
            self.fill(self.runner, x)
            loss = self.learn_from(y, total)
        self.step += 1
        return loss

    def rehearse(self, x: np.ndarray, y: np.ndarray) -> None:
        """Run every section on all of (x, y), n ≤ batch samples: the most that a step can ask of the arena."""
        rule = self.program.plan.instances
        self.runner = self.whole
        if rule:
            rule.step(self, x, y, 1, everything=True)
        else:
            self.fill(self.runner, x)
            self.learn_from(y, 1)

    def runner_without(self, dropped: frozenset[str]) -> Runner:
        """The runner of the step that leaves these blocks out, compiled where it is none of the last ones used."""
        if not dropped:
            return self.whole
        runner = self._shallow.pop(dropped, None)
        if runner is None:
            runner = Runner(self.program.without(dropped), self.parameters, whole=self.whole)
            runner.made = self.made.setdefault(dropped, runner.made)
        self._shallow[dropped] = runner
        if len(self._shallow) > SHALLOW:
            del self._shallow[next(iter(self._shallow))]
        return runner

    def put(self, chosen: np.ndarray, y: np.ndarray, net: str = "") -> None:
        """Tell a net's next section the instances of the mini-batch to work on, and their labels."""
        self.runner.host(f"{net}chosen", len(chosen))[...] = chosen
        self.runner.host(f"{net}labels", len(chosen))[...] = y

    def learn_from(self, y: np.ndarray, total: int) -> float:
        """Forward, backward and update on the n samples of the input, with labels or targets y; the loss."""
        labels = "labels" if "labels" in self.program.step.host_writes else "target"
        self.runner.host(labels, len(y))[...] = y
        return self.learn(len(y), total)

    def learn(self, n: int, total: int, net: str = "") -> float:
        """Forward, backward and update of a net on n samples that are in place; returns the loss."""
        runner, step = self.runner, self.runner.program.step
        for name, value in step.scalars.items():
            if name.startswith(net) and "." not in name.removeprefix(net):
                runner.host(name, n)[0] = value(self.step, total, self.seed)
        runner.run(f"{net}forward", n)
        loss = float(runner.host(f"{net}loss", n)[0])
        if not math.isfinite(loss):
            before = f" (it was {self.losses[-1]:.4g} before)" if self.losses and not net else ""
            self.stop(f"the loss is {loss} at step {self.step + 1}{before}", self.first_bad(n, f"{net}forward"))
        runner.run(f"{net}backward", n)
        for name in [name for name in self.trained[net] if name in step.gradients]:
            g = runner.array(step.gradients[name])
            if not np.isfinite(np.vdot(g, g)):
                self.stop(f"the gradient of {name} is not finite at step {self.step + 1}", name.rsplit(".", 1)[0])
        runner.run(f"{net}update", n)
        return loss

    def stop(self, what: str, layer: str) -> None:
        """Put the last good weights back and raise NonFiniteError."""
        if not all(np.isfinite(p).all() for p in self.parameters.values()):
            self._restore()
        raise NonFiniteError(
            f"{what}, first in layer {layer}; a lower lr may help; the weights of step {self.step} are kept"
        )

    def first_bad(self, n: int, section: str) -> str:
        """The first node of a section that writes a NaN or an infinity, run launch by launch."""
        for launch, (function, args) in zip(
            self.runner.program.launches[section], self.runner.prepared(section, n), strict=True
        ):
            function(*args)
            for b in launch.writes:
                if np.issubdtype(b.dtype, np.floating) and not np.isfinite(self.runner.array(b, n)).all():
                    return launch.covers[-1].node
        return "loss"

    def predict(self, x: np.ndarray | Resized) -> np.ndarray:
        """Outputs (M, classes) of x (M, H, W, C) in inference mode, in the program's dtype."""
        self.check(x)
        runner, batch = self.inference, self.program.batch
        self.evaluated()
        out = None
        with threads(self.program.threads):
            for start in range(0, len(x), batch):
                part = x[start : start + batch]
                self.fill(runner, part)
                runner.run("forward", len(part))
                y = runner.host("output", len(part))
                if out is None:
                    out = np.empty((len(x), *y.shape[1:]), y.dtype)
                out[start : start + len(part)] = y
        return out

    def evaluated(self) -> dict[str, np.ndarray]:
        """The parameters of the net that is evaluated: those that train, scaled where steps left blocks out."""
        for name, scale in self.scales.items():
            np.multiply(self.parameters[name], scale if self.step else 1.0, out=self._scaled[name])
        return self.parameters | self._scaled

    def evaluate(self, x: np.ndarray | Resized, y: np.ndarray) -> float:
        """Share of x (M, H, W, C) that is classified as y (M,)."""
        self.check(x, y)
        return float(np.mean(self.predict(x).argmax(1) == y))

    def fill(self, runner: Runner, x: np.ndarray) -> None:
        """Copy samples into the arena."""
        runner.host(INPUT, len(x))[...] = x

    def check(self, x: np.ndarray | Resized, y: np.ndarray | None = None) -> None:
        """ValueError with one sentence where data do not fit the program."""
        want = self.program.step.host_writes[INPUT].shape[1:]
        if not isinstance(x, (np.ndarray, Resized)) or isinstance(x, np.ndarray) and x.dtype.kind not in REAL:
            kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise ValueError(f"x must be an array of real numbers, such as float32, but it is of {kind}")
        if len(x.shape) != 4 or x.shape[1:] != want or not len(x):
            raise ValueError(f"x must be (M, H, W, C) with H, W, C = {want} and M ≥ 1, but its shape is {x.shape}")
        count = max(1, BLOCK // math.prod(want))
        for start in range(0, len(x), count) if isinstance(x, np.ndarray) else ():
            finite = np.isfinite(x[start : start + count])
            if not finite.all():
                bad = start + int(np.flatnonzero(~finite.reshape(len(finite), -1).all(1))[0])
                raise ValueError(f"x has a NaN or infinite value in sample {bad}; remove or repair it")
        if y is None:
            return
        self._check_labels(y)
        if len(y) != len(x):
            raise ValueError(f"x has {len(x)} samples, but y has {len(y)}")

    def _check_labels(self, y: np.ndarray) -> None:
        """ValueError where y are no class numbers, or for mse no targets."""
        if not isinstance(y, np.ndarray):
            raise ValueError(f"y must be a NumPy array, but it is of {type(y).__name__}")
        step = self.program.step
        if "labels" not in step.host_writes:
            return
        if y.ndim != 1 or y.dtype.kind not in "iu":
            raise ValueError(
                f"y must be (M,) class numbers of an integer type, but its shape is {y.shape} and its type {y.dtype}"
            )
        classes = step.host_reads["output"].shape[1]
        if len(y) and (y.min() < 0 or y.max() >= classes):
            raise ValueError(f"labels must be from 0 to {classes - 1}, but y has {int(y.min())} to {int(y.max())}")

    def check_batches(self, samples: int) -> None:
        """ValueError where a batch of an epoch leaves a batch norm one value a channel: it has no variance."""
        batch, rule = self.program.batch, self.program.plan.instances
        node = next(filter(None, (self.thin(s) for s in self.program.sections if s.endswith("forward"))), None)
        for kind, size in (("last", samples % batch or min(samples, batch)), ("first", min(samples, batch))):
            chosen = rule.fewest(size) if rule else size
            if node and chosen == 1:
                what = "is a single one" if size == 1 else f"trains on a single one under {rule.method}"
                raise ValueError(
                    f"the {kind} batch of {samples} samples in batches of {batch} {what}, which gives {node} one value "
                    "a channel: choose another batch size"
                )

    def thin(self, section: str) -> str | None:
        """The first batch norm of a section that takes statistics of one value a sample: it needs two samples."""
        for call in self.program.step.calls[section]:
            statistics = call.passed.operator == "batch_norm" and call.passed.name == "mean"
            if statistics and math.prod(call.arrays["x"].shape[1:3]) == 1:
                return call.node
        return None

    def save(self, path, **more: str) -> None:
        """Write the weights as safetensors: beside, flushed, then renamed. more: metadata beside those of the model."""
        graph = self.program.graph
        evaluated = self.evaluated()
        own = {name: evaluated[name] for name in graph.parameters}
        notes = {"model": graph.name, "size": f"{self.program.size}", "options": json.dumps(graph.options)}
        checkpoint.save(path, own, notes | more)

    def resume_arrays(self) -> dict[str, np.ndarray]:
        """Everything that a later run needs beside the step number: parameters, optimizer arrays, rules' memory."""
        state = {f"optimizer/{name}": self.whole.owned[b] for name, b in self.program.step.state.items()}
        for node in orders(self.program):
            state[f"order/{node}"] = self.whole.owned[self.program.step.constants[f"{node}.order"].buffer]
        return self.parameters | state | {f"instances/{name}": a for name, a in self.memory.items()}

    def resume(self, arrays: Mapping[str, np.ndarray], step: int, losses: list[float]) -> None:
        """Go on from arrays of `resume_arrays` after `step` steps."""
        mine = self.resume_arrays()
        for name, a in mine.items():
            if name not in arrays or arrays[name].shape != a.shape:
                raise ValueError(f"the saved run has no array {name} of shape {a.shape}: it is of another plan")
            a[...] = arrays[name]
        self.step, self.losses = step, list(losses)

    def _snapshot(self) -> None:
        for name, a in self._good.items():
            a[...] = self.parameters[name]
        self._good_step = self.step

    def _restore(self) -> None:
        for name, a in self._good.items():
            self.parameters[name][...] = a
        self.step = self._good_step


def initial(program: Program, seed: int) -> dict[str, np.ndarray]:
    """Parameter arrays of a program: the graph's weights where it has them, else drawn from the seed.

    ValueError for weights that the graph has no parameter for, or of another shape.
    """
    arrays = {}
    for graph in program.graphs.values():
        for name, a in graph.weights.items():
            if name not in graph.parameters:
                raise ValueError(f"{graph.name} has no parameter {name!r}; it has {', '.join(graph.parameters)}")
            if np.shape(a) != tuple(graph.parameters[name].shape):
                shape = tuple(graph.parameters[name].shape)
                raise ValueError(f"the weights {name!r} of {graph.name} must be of shape {shape}, got {np.shape(a)}")
    found = [(prefix, graph, name) for prefix, graph in program.graphs.items() for name in graph.parameters]
    for i, (prefix, graph, own) in enumerate(found):
        p, name = graph.parameters[own], prefix + own
        if own in graph.weights:
            arrays[name] = np.array(graph.weights[own], program.dtype, order="C").reshape(p.shape)
        elif p.init == "he":
            arrays[name] = drawn = np.empty(p.shape, program.dtype)
            flat = drawn.reshape(-1)
            for start in range(0, flat.size, BLOCK):
                part = flat[start : start + BLOCK]
                part[...] = random.normal(seed, random.WEIGHTS, i, part.size, start) * math.sqrt(2 / p.fan_in)
        else:
            arrays[name] = np.full(p.shape, {"zeros": 0, "ones": 1}[p.init], program.dtype)
    return arrays
