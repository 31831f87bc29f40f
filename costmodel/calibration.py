"""Measure this device: time every launch of training steps of single layers, and fit the rates of its kernels.

Each case is one layer between a 1×1 convolution, which makes the layer compute dx, and a classifier. Rounds go over all
cases in turn, so that a slow minute of the machine does not fall on one of them; the median of the rounds is kept. Each
launch is timed twice: as the step before left the caches, and after they were emptied.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl.fast import add
from refimpl.methods.error_map_pruning import ErrorMapPruning
from refimpl.methods.sparse_update import SparseUpdate
from refimpl.train import threads as running

from . import kernels, rates
from .kernels import Caches
from .rates import Rates, Sample

PLAIN = ri.Backprop(ri.SGD(lr=1e-6))  # weights that were never trained must not be driven out of range
MOMENTUM = ri.Backprop(ri.SGD(lr=1e-6, momentum=0.9))
CLASSES = 10
HOST = "host.step"  # what Python does around a step's launches


@dataclass(frozen=True)
class Layer:
    """One layer: `kind` of convolution on maps of side² and `inputs` channels, to `outputs` channels."""

    kind: str
    batch: int
    side: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1

    def graph(self) -> ri.Graph:
        """The layer between a 1×1 convolution and a classifier; kind `first` has nothing before it."""
        g = ri.Graph(str(self), (self.side, self.side), self.inputs if self.kind == "first" else 3)
        rectify = g.relu6 if self.kind in ("separable", "depthwise") else g.relu
        x = "input"
        if self.kind != "first":
            x = rectify("stem.act", g.batch_norm("stem.bn", g.conv2d("stem", x, self.inputs, 1)))
        pad, groups = self.kernel // 2, self.inputs if self.kind == "depthwise" else 1
        if self.kind == "pool":
            x = g.max_pool("pool", x, self.kernel, self.stride, pad=pad if self.kernel == 3 else 0)
        elif self.kind == "bias":
            x = rectify("act", g.conv2d("conv", x, self.outputs, self.kernel, self.stride, bias=True))
        elif self.kind == "linear":
            x = g.relu("act", g.linear("hidden", g.flatten("flat", x), self.outputs))
            g.linear("fc", x, CLASSES)
            return g
        else:
            y = g.conv2d("conv", x, self.outputs, self.kernel, self.stride, pad=pad, groups=groups)
            y = g.batch_norm("bn", y)
            x = rectify("act", g.add("sum", y, x) if self.kind == "residual" else y)
        g.linear("fc", g.global_avg_pool("mean", x), CLASSES)
        return g


@dataclass
class Case:
    """A layer under a plan, ready to be timed. plan None: inference."""

    layer: Layer
    plan: ri.Plan | None
    threads: int
    caches: Caches
    runs: dict[bool, list[list[float]]] = field(default_factory=lambda: {False: [], True: []})  # cold? → rows
    host: list[float] = field(default_factory=list)

    def __post_init__(self):
        n = self.layer.batch
        program = ri.compile(self.layer.graph(), self.plan, n, threads=self.threads)
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((n, *program.graph.size, program.graph.channels), dtype=np.float32)
        self.y = rng.integers(0, CLASSES, n)
        self.program, self.trainer = program, ri.Trainer(program)
        runner = self.trainer.runner
        self.launches = [pair for s in program.sections for pair in runner.prepared(s, n)]

    def fill(self) -> None:
        """Put the host's arrays in place again: the arena reuses their memory after their last reader."""
        runner, n, scalars = self.trainer.runner, self.layer.batch, self.program.step.scalars
        for name in self.program.step.host_writes:
            value = self.x if name == "input" else self.y if name == "labels" else scalars[name](1, 10, 0)
            runner.host(name, n)[...] = value

    def time(self, seconds: float, empty: Callable[[], None]) -> None:
        """Time steps for about so many seconds, warm and cold, and keep a row of launches each."""
        clock = time.perf_counter
        self.fill()
        for function, args in self.launches:
            function(*args)
        began = clock()
        while True:
            for cold in (False, True):
                self.fill()
                row = []
                last = clock()
                for function, args in self.launches:
                    if cold:
                        empty()
                        last = clock()
                    function(*args)
                    now = clock()
                    row.append(now - last)
                    last = now
                self.runs[cold].append(row)
            if self.plan is not None:
                self.host.append(self._around())
            if clock() - began > seconds:
                return

    def _around(self) -> float:
        """Seconds of a step that are not in its launches."""
        runner, inside = self.trainer.runner, 0.0
        launch = runner.run

        def run(section: str, n: int) -> None:
            nonlocal inside
            started = time.perf_counter()
            launch(section, n)
            inside += time.perf_counter() - started

        runner.run = run
        try:
            started = time.perf_counter()
            self.trainer.train_step(self.x, self.y, 10)
            return time.perf_counter() - started - inside
        finally:
            del runner.run

    def samples(self, number: int) -> Iterator[Sample]:
        """The median of every launch, warm and cold, each a case of its own."""
        for cold, rows in self.runs.items():
            terms = kernels.work(self.program, self.caches, cold)
            for launch, amounts, seconds in zip(self.program.order, terms, np.median(rows, axis=0), strict=True):
                yield Sample(kernels.kernel(launch), amounts, float(seconds), 2 * number + cold)
        if self.host:
            yield Sample(HOST, host_terms(self.program), statistics.median(self.host), 2 * number)


def host_terms(program: ri.Program) -> dict[str, float]:
    """The terms of what Python does around a step: it fills in the samples and looks whether gradients are finite."""
    step = program.step
    gradients = [g for name, g in step.gradients.items()]
    elements = sum(g.nbytes // g.dtype.itemsize for g in gradients)
    copied = step.host_writes["input"]
    return {
        "call": 1.0,
        "tile": float(len(gradients)),
        "element": float(elements + copied.nbytes // copied.dtype.itemsize),
    }


def cases(threads: int, caches: Caches) -> Iterator[Case]:
    """The layers that are timed."""
    for layer, plans in LAYERS:
        for plan in plans:
            yield Case(layer, plan, threads, caches)


DENSE = ri.Plan("all", step=PLAIN)
TRAINED_NORM = ri.Plan("all", step=MOMENTUM, batch_norm="train", train_bias=True)
METHODS = (
    ri.Plan(2, rules=[ri.GradientFilter(2)], step=PLAIN),
    ri.Plan(2, rules=[ri.GradientFilter(4)], step=PLAIN),
    ri.Plan("all", rules=[ErrorMapPruning(0.5)], step=PLAIN),
    ri.Plan("all", rules=[ErrorMapPruning(0.25)], step=PLAIN),
    ri.Plan(2, rules=[SparseUpdate(0.1)], step=PLAIN),
)
EVERY = (DENSE, TRAINED_NORM, None, *METHODS)

LAYERS: list[tuple[Layer, tuple]] = [
    *((Layer("plain", *of), (DENSE,)) for of in (
        (8, 56, 8, 8), (8, 32, 16, 16), (1, 32, 16, 32, 3, 2), (8, 28, 32, 64, 3, 2), (8, 16, 64, 64), (32, 8, 64, 64),
        (2, 28, 64, 128, 3, 2), (8, 7, 128, 512), (4, 4, 512, 512), (1, 56, 64, 64), (8, 14, 64, 128, 1, 2),
        (8, 28, 24, 48, 5), (4, 56, 16, 32, 7, 2), (8, 14, 64, 128, 1), (8, 28, 32, 64, 1), (1, 14, 256, 512, 1),
        (8, 7, 512, 256, 1), (8, 20, 48, 80), (8, 10, 100, 36), (2, 8, 256, 512, 3, 2), (4, 16, 64, 64, 5),
    )),
    *((Layer("residual", *of), EVERY) for of in (
        (8, 32, 16, 16), (8, 16, 32, 32), (16, 8, 64, 64), (1, 28, 64, 64), (4, 14, 128, 128), (2, 7, 256, 256),
        (8, 4, 512, 512), (64, 8, 16, 16),
    )),
    *((Layer("separable", *of, 1), (DENSE,)) for of in (
        (8, 48, 32, 16), (8, 24, 144, 24), (8, 12, 32, 192), (8, 12, 192, 32), (8, 6, 384, 64), (8, 3, 960, 160),
        (8, 3, 320, 1280), (1, 14, 192, 64), (1, 28, 24, 144), (1, 7, 576, 160), (16, 8, 64, 384), (1, 64, 32, 16),
    )),
    *((Layer("separable", *of, 1), EVERY) for of in (
        (8, 24, 24, 144), (8, 6, 96, 576), (1, 4, 960, 160), (32, 8, 16, 96),
    )),
    *((Layer("depthwise", *of), (DENSE,)) for of in (
        (8, 48, 32, 32), (8, 48, 96, 96, 3, 2), (8, 24, 144, 144, 3, 2), (8, 12, 192, 192), (8, 12, 192, 192, 3, 2),
        (8, 3, 960, 960), (1, 56, 96, 96, 3, 2), (1, 14, 384, 384), (32, 16, 64, 64), (1, 112, 32, 32),
        (8, 7, 320, 320),
    )),
    *((Layer("depthwise", *of), EVERY) for of in (
        (8, 24, 144, 144), (8, 6, 384, 384), (1, 28, 144, 144), (8, 6, 576, 576, 3, 2),
    )),
    *((Layer("pool", *of), (DENSE, None)) for of in (
        (8, 32, 16, 0, 2, 2), (2, 56, 64, 0, 3, 2), (32, 24, 20, 0, 2, 2), (64, 28, 6, 0, 2, 2), (32, 8, 50, 0, 2, 2),
    )),
    *((Layer("bias", *of), (TRAINED_NORM, None)) for of in ((32, 14, 6, 16, 5), (32, 28, 8, 20, 5), (8, 12, 20, 50, 5))),
    *((Layer("linear", *of), (TRAINED_NORM, None)) for of in (
        (32, 5, 16, 120), (64, 4, 50, 500), (8, 3, 64, 128), (1, 4, 128, 256),
    )),
    *((Layer("first", *of), (DENSE, None)) for of in (
        (8, 32, 3, 16), (8, 96, 3, 32, 3, 2), (2, 64, 3, 64, 7, 2), (32, 28, 3, 6, 5), (1, 112, 3, 32, 3, 2),
        (32, 28, 1, 6, 5), (8, 28, 1, 20, 5), (64, 20, 1, 8, 3), (8, 28, 1, 32, 3), (4, 64, 1, 16, 5, 2),
    )),
]  # fmt: skip


def measure(
    threads: int, caches: Caches, watch: Callable[[int, int, str], None], rounds: int = 3, seconds: float = 0.12
) -> tuple[Rates, list[Sample]]:
    """Time every case in turn, `rounds` times for about `seconds` each; the fitted rates, and what was timed."""
    made = []
    total = sum(len(plans) for _, plans in LAYERS) * (rounds + 1)
    with running(threads):
        for case in cases(threads, caches):
            watch(len(made), total, "compile")
            made.append(case)
        empty = emptier(caches)
        for turn in range(rounds):
            for i, case in enumerate(made):
                watch(len(made) * (turn + 1) + i, total, f"round {turn + 1} of {rounds}")
                case.time(seconds, empty)
    samples = [s for i, case in enumerate(made) for s in case.samples(i)]
    return Rates(rates.fit(samples), rates.spread(samples)), samples


def emptier(caches: Caches) -> Callable[[], None]:
    """A function that fills the fast caches of all threads with something else."""
    a = np.zeros(int(caches.fast) // 4, np.float32)
    b, c = a.copy(), a.copy()
    return lambda: add.forward(a, b, c)


def caches_of(threads: int) -> Caches:
    """The caches that `threads` cores have, where Linux tells them; else those of `Caches`."""
    found = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level = (index / "type").read_text().strip(), int((index / "level").read_text())
            size, shared = (index / "size").read_text().strip(), (index / "shared_cpu_list").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and size.endswith("K"):
            found[level] = (1024 * int(size[:-1]), "," in shared or "-" in shared)
    if 2 not in found:
        return Caches()
    size, shared = found[2]
    last = found[max(found)][0] if max(found) > 2 else 0
    return Caches(fast=size * (1 if shared else threads), last=min(last, 16 * 2**20))
