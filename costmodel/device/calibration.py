"""Measure this device: time every launch of training steps of single layers, and fit the rates of its kernels.

Each case is one layer between a 1×1 convolution, which makes the layer compute dx, and a classifier. Each launch is
timed twice: as the step before left the caches, and after they were emptied. Fixed pieces of work are timed before and
after: arithmetic, reading the last cache, starting threads. Where one of them is slow, somebody else used the cores or
the cache that they share, or the clock fell, and the row does not count.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import refimpl as ri
from refimpl.backends.cpu import add
from refimpl.kernels.running import threads as running
from refimpl.methods.registry import known, of_kind
from refimpl.surgery.for_step import made_for
from refimpl.surgery.quantize import quantize
from refimpl.training.state import initial

from . import kernels, rates
from .kernels import HOST, Caches
from .rates import Rates, TimedLaunch

PLAIN = ri.Backprop(ri.SGD(lr=1e-6))  # weights that were never trained must not be driven out of range
MOMENTUM = ri.Backprop(ri.SGD(lr=1e-6, momentum=0.9))
CLASSES = 10


@dataclass(frozen=True)
class LayerCase:
    """One layer: `kind` of convolution on maps of side² and `inputs` channels, to `outputs` channels."""

    kind: str
    batch: int
    side: int
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    bits: int = 0  # of weights, where the net is to be one of whole numbers

    def program(
        self, plan: ri.Plan | None, threads: int, backend: str = "fast", larger: int = 1
    ) -> ri.Program:  # fmt: skip
        """The compiled net, in whole numbers where `bits` or the step of the plan asks for them.

        larger: times the batch.
        """
        graph, rng, batch = self.graph(), np.random.default_rng(0), self.batch * larger
        x = rng.standard_normal((batch, self.side, self.side, graph.channels), dtype=np.float32)
        if self.bits:
            graph = quantize(graph, initial(ri.compile(graph, None, 1), 0), x, self.bits)
        elif plan is not None:
            graph = made_for(plan.step, graph, x)
        return ri.compile(graph, plan, batch, backend=backend, threads=threads)

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


class SpeedReference:
    """Fixed pieces of work, timed beside everything else: does the machine run at its own speed just now?

    A convolution within the fast caches; sums of arrays that fit in the last cache only; and sums so short that they
    tell how fast threads start. To be made and used where as many threads run: inside
    `kernels.running.threads(threads)`.
    """

    def __init__(self, threads: int, caches: Caches):
        g = ri.Graph("reference", (16, 16), 64)
        g.linear("fc", g.global_avg_pool("mean", g.conv2d("conv", "input", 64, 3, pad=1)), CLASSES)
        runner = ri.Trainer(ri.compile(g, None, 2, threads=threads)).runner
        self.launch, self.args = runner.prepared("forward", 2)[0]
        self.reader, self.starter = Emptier((caches.fast * caches.last) ** 0.5), Emptier(SHORT)
        self.seconds()

    def seconds(self) -> np.ndarray:
        """The better of two runs of each piece (3,)."""
        pieces = ((1, lambda: self.launch(*self.args)), (READS, self.reader), (STARTS, self.starter))
        return np.array([min(_seconds_of(*piece) for _ in range(2)) for piece in pieces])


def _seconds_of(times: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - started


@dataclass
class Timed:
    """Times of one program, each with the reference work's around it: (reference seconds (3,), what was timed).

    To be timed where as many threads run as it was compiled for.
    """

    program: ri.Program
    # of each launch, by the bytes of something else that were touched before it
    launches: dict[float, list[tuple[np.ndarray, list[float]]]] = field(default_factory=dict)
    host: list[tuple[np.ndarray, float]] = field(default_factory=list)  # of what Python does around a step's launches
    whole: list[tuple[np.ndarray, float]] = field(default_factory=list)  # of a training step, or of inference

    def __post_init__(self):
        p = self.program
        n, rng = p.batch, np.random.default_rng(0)
        self.x = rng.standard_normal((n, *p.size, p.graph.channels), dtype=np.float32)
        self.y = rng.integers(0, p.graph.shape(p.graph.output)[1], n)
        self.trainer = ri.Trainer(p)
        self.prepared = [pair for s in p.sections for pair in self.trainer.runner.prepared(s, n)]

    def fill(self) -> None:
        """Put the host's arrays in place again: the arena reuses their memory after their last reader.

        What a step tells beside its scalars, such as draws and their coefficients, is 1: no time depends on it.
        """
        runner, n, scalars = self.trainer.runner, self.program.batch, self.program.step.scalars
        given = {"input": self.x, "labels": self.y}
        for name in self.program.step.host_writes:
            value = given[name] if name in given else scalars[name](1, 10, 0) if name in scalars else 1
            runner.host(name, n)[...] = value

    def time_launches(self, reference: SpeedReference, empty: "Emptier") -> None:
        """Time each launch of a step once, and what is around them."""
        before, row = reference.seconds(), []
        self.fill()
        for function, args in self.prepared:
            empty()
            started = time.perf_counter()
            function(*args)
            row.append(time.perf_counter() - started)
        self.launches.setdefault(empty.nbytes, []).append((np.maximum(before, reference.seconds()), row))
        if self.program.training and not empty.nbytes:
            before, seconds = reference.seconds(), self._around()
            self.host.append((np.maximum(before, reference.seconds()), seconds))

    def time_whole(self, reference: SpeedReference) -> None:
        """Time a whole step as a user runs it."""
        before = reference.seconds()
        started = time.perf_counter()
        if self.program.training:
            self.trainer.train_step(self.x, self.y, 10)
        else:
            self.trainer.fill(self.trainer.runner, self.x)
            self.trainer.runner.run("forward", self.program.batch)
        seconds = time.perf_counter() - started
        self.whole.append((np.maximum(before, reference.seconds()), seconds))

    def _around(self) -> float:
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

    def samples(self, caches: Caches, case: int, limit: np.ndarray) -> Iterator[TimedLaunch]:
        """The median of every launch; case: number of the first of its cases, one for each way to leave the caches."""
        for i, (emptied, rows) in enumerate(self.launches.items()):
            terms = kernels.work(self.program, caches, emptied)
            for launch, amounts, seconds in zip(self.program.order, terms, undisturbed(rows, limit), strict=True):
                yield TimedLaunch(kernels.kernel(launch), amounts, float(seconds), case + i)
        if self.host:
            turns = self.program.schedule(self.program.batch)
            times = max(turn.times for turn in turns)  # what a section of many turns costs is said for each of them
            yield TimedLaunch(HOST, kernels.around(self.program), float(undisturbed(self.host, limit)) / times, case)

    def good(self, limit: np.ndarray) -> int:
        """Undisturbed rows that there are of each way to leave the caches."""
        return min(sum(slowness(r, limit) <= 1 for r, _ in rows) for rows in self.launches.values())

    @property
    def references(self) -> list[np.ndarray]:
        """Every time of the reference work."""
        return [r for rows in (*self.launches.values(), self.whole) for r, _ in rows]


def slowness(reference: np.ndarray, limit: np.ndarray) -> float:
    """Reference seconds of the slowest piece of work, as a multiple of its limit: up to 1 it is undisturbed."""
    return float(np.max(np.divide(reference, limit)))


def undisturbed(rows: Sequence[tuple[np.ndarray, Any]], limit: np.ndarray) -> np.ndarray:
    """Median of the rows whose reference work kept its limits; the least disturbed row where none did."""
    slow = [slowness(reference, limit) for reference, _ in rows]
    least = max(1.0, min(slow))
    return np.median([seconds for (_, seconds), s in zip(rows, slow, strict=True) if s <= least], axis=0)


DENSE = ri.Plan("all", step=PLAIN)
TRAINED_NORM = ri.Plan("all", step=MOMENTUM, batch_norm="train", train_bias=True)
METHODS = tuple(
    ri.Plan("all", rules=[known()[name](**settings)], step=PLAIN)
    for name in of_kind("rule")
    for settings in known()[name].states.tried.timed
)
STEPS = tuple(
    ri.Plan("all", step=known()[name](**settings, optimizer=ri.SGD(lr=0.01)))
    for name in of_kind("step")
    for settings in known()[name].states.tried.timed
)
EVERY = (DENSE, TRAINED_NORM, None, *METHODS)

WIDTHS = (8, 16)  # of weights in whole numbers
LAYERS: list[tuple[LayerCase, tuple]] = [
    *((LayerCase("plain", *of), (DENSE,)) for of in (
        (8, 56, 8, 8), (8, 32, 16, 16), (1, 32, 16, 32, 3, 2), (8, 28, 32, 64, 3, 2), (8, 16, 64, 64), (32, 8, 64, 64),
        (2, 28, 64, 128, 3, 2), (8, 7, 128, 512), (4, 4, 512, 512), (1, 56, 64, 64), (8, 14, 64, 128, 1, 2),
        (8, 28, 24, 48, 5), (4, 56, 16, 32, 7, 2), (8, 14, 64, 128, 1), (8, 28, 32, 64, 1), (1, 14, 256, 512, 1),
        (8, 7, 512, 256, 1), (8, 20, 48, 80), (8, 10, 100, 36), (2, 8, 256, 512, 3, 2), (4, 16, 64, 64, 5),
    )),
    *((LayerCase("residual", *of), EVERY) for of in (
        (8, 32, 16, 16), (8, 16, 32, 32), (16, 8, 64, 64), (1, 28, 64, 64), (4, 14, 128, 128), (2, 7, 256, 256),
        (8, 4, 512, 512), (64, 8, 16, 16),
    )),
    *((LayerCase("separable", *of, 1), (DENSE,)) for of in (
        (8, 48, 32, 16), (8, 24, 144, 24), (8, 12, 32, 192), (8, 12, 192, 32), (8, 6, 384, 64), (8, 3, 960, 160),
        (8, 3, 320, 1280), (1, 14, 192, 64), (1, 28, 24, 144), (1, 7, 576, 160), (16, 8, 64, 384), (1, 64, 32, 16),
    )),
    *((LayerCase("separable", *of, 1), EVERY) for of in (
        (8, 24, 24, 144), (8, 6, 96, 576), (1, 4, 960, 160), (32, 8, 16, 96),
    )),
    *((LayerCase("depthwise", *of), (DENSE,)) for of in (
        (8, 48, 32, 32), (8, 48, 96, 96, 3, 2), (8, 24, 144, 144, 3, 2), (8, 12, 192, 192), (8, 12, 192, 192, 3, 2),
        (8, 3, 960, 960), (1, 56, 96, 96, 3, 2), (1, 14, 384, 384), (32, 16, 64, 64), (1, 112, 32, 32),
        (8, 7, 320, 320),
    )),
    *((LayerCase("depthwise", *of), EVERY) for of in (
        (8, 24, 144, 144), (8, 6, 384, 384), (1, 28, 144, 144), (8, 6, 576, 576, 3, 2),
    )),
    *((LayerCase("pool", *of), (DENSE, None)) for of in (
        (8, 32, 16, 0, 2, 2), (2, 56, 64, 0, 3, 2), (32, 24, 20, 0, 2, 2), (64, 28, 6, 0, 2, 2), (32, 8, 50, 0, 2, 2),
        (64, 10, 16, 0, 2, 2), (16, 24, 32, 0, 2, 2), (8, 48, 8, 0, 3, 2),
    )),
    *((LayerCase("bias", *of), (TRAINED_NORM, None)) for of in (
        (32, 14, 6, 16, 5), (32, 28, 8, 20, 5), (8, 12, 20, 50, 5),
    )),
    *((LayerCase("linear", *of), (TRAINED_NORM, None)) for of in (
        (32, 5, 16, 120), (64, 4, 50, 500), (8, 3, 64, 128), (1, 4, 128, 256),
    )),
    *((LayerCase("first", *of), (DENSE, None)) for of in (
        (8, 32, 3, 16), (8, 96, 3, 32, 3, 2), (2, 64, 3, 64, 7, 2), (32, 28, 3, 6, 5), (1, 112, 3, 32, 3, 2),
        (32, 28, 1, 6, 5), (8, 28, 1, 20, 5), (64, 20, 1, 8, 3), (8, 28, 1, 32, 3), (4, 64, 1, 16, 5, 2),
    )),
    *((LayerCase("residual", *of), STEPS) for of in ((8, 32, 16, 16), (4, 14, 128, 128), (1, 28, 64, 64))),
    *((LayerCase("depthwise", *of), STEPS) for of in ((8, 24, 144, 144), (1, 28, 144, 144))),
    *((LayerCase("residual", *of, bits=bits), (None,)) for bits in WIDTHS for of in (
        (8, 32, 16, 16), (8, 16, 32, 32), (1, 28, 64, 64), (4, 14, 128, 128), (8, 4, 512, 512),
    )),
    *((LayerCase("separable", *of, 1, bits=bits), (None,)) for bits in WIDTHS for of in (
        (8, 24, 144, 24), (8, 12, 32, 192), (1, 14, 192, 64), (8, 3, 320, 1280),
    )),
    *((LayerCase("depthwise", *of, bits=bits), (None,)) for bits in WIDTHS for of in (
        (8, 48, 32, 32), (8, 24, 144, 144, 3, 2), (8, 6, 384, 384), (1, 28, 144, 144),
    )),
    *((LayerCase("depthwise", *of, bits=8), (None,)) for of in (
        (1, 64, 16, 16), (1, 8, 160, 160, 7), (1, 32, 48, 48, 7, 2), (1, 4, 384, 384, 5), (1, 16, 96, 96),
        (1, 8, 144, 144), (1, 4, 336, 336), (1, 8, 192, 192, 3, 2),
    )),
    *((LayerCase("separable", *of, 1, bits=8), (None,)) for of in (
        (1, 32, 8, 48), (1, 32, 48, 8), (1, 16, 16, 96), (1, 8, 24, 144), (1, 8, 144, 24), (1, 4, 56, 336),
        (1, 4, 336, 56),
    )),
    *((LayerCase("residual", *of, 1, bits=8), (None,)) for of in ((1, 32, 8, 8), (1, 16, 16, 16), (1, 8, 24, 24))),
    *((LayerCase("pool", *of, bits=8), (None,)) for of in ((8, 32, 16, 0, 2, 2), (32, 24, 20, 0, 2, 2))),
]  # fmt: skip


DISTURBED = 1.12  # times its own best: the reference then shares the machine with somebody, or the clock fell
READS, STARTS = 4, 32  # calls of the pieces of reference work that read the last cache and start threads
FLOAT = np.dtype(np.float32).itemsize  # of the arrays that are timed, as rates are of float32 kernels
SHORT = 3 * FLOAT * 4096  # bytes of the arrays that the latter sums
WANTED = 3  # undisturbed rows of each case
WAYS = 3  # to leave the caches before a launch, at most
FAR = 1 << 20  # bytes of parameters from which a layer is timed with caches that hold none of them


def measure(
    threads: int, caches: Caches, watch: Callable[[int, int, str], None], seconds: float = 240.0, rounds: int = 4
) -> tuple[Rates, list[TimedLaunch], dict]:
    """Time every case and fit rates; the rates, what was timed, and how steady the machine was.

    Rounds over all cases are followed by more over those that were disturbed, until about `seconds` have passed.
    """
    with running(threads):
        layers = LayerTimer(threads, caches, watch)
        while layers.wanted(rounds) and (layers.rounds < rounds or time.perf_counter() - layers.began < seconds):
            layers.turn(rounds, watch)
    return layers.fitted()


PROBED = [
    (LayerCase(*of), (DENSE,)) for of in (
        ("plain", 8, 28, 32, 64, 3, 2), ("plain", 1, 14, 256, 512, 1), ("residual", 8, 16, 32, 32),
        ("residual", 4, 14, 128, 128), ("separable", 8, 24, 144, 24, 1), ("separable", 8, 3, 960, 160, 1),
        ("depthwise", 8, 24, 144, 144), ("linear", 32, 5, 16, 120), ("first", 8, 96, 3, 32, 3, 2),
    )
]  # fmt: skip


def probe(
    threads: int, caches: Caches, known: Rates, watch: Callable[[int, int, str], None], seconds: float = 3.0
) -> tuple[Rates, dict]:
    """The rates of another machine, scaled to this one by timing the layers of PROBED for some seconds; how steady.

    Each group of terms (`kernels.GROUPS`) has a factor of its own, fitted to all launches (`rates.scales`).
    """
    with running(threads):
        layers = LayerTimer(threads, caches, watch, PROBED)
        began = time.perf_counter()
        while layers.rounds < WANTED or time.perf_counter() - began < seconds:
            layers.turn(layers.rounds + 1, watch)
    samples, steadiness = layers.timed_launches()
    return rates.scaled_by(samples, known), steadiness


class LayerTimer:
    """Every case of some layers, timed in turns. To be made and used where `threads` threads run."""

    def __init__(
        self, threads: int, caches: Caches, watch: Callable[[int, int, str], None], layers: list | None = None
    ):
        self.began, self.caches, self.rounds = time.perf_counter(), caches, 0
        self.ways = [Emptier(0.0), Emptier(1.5 * caches.fast)]
        self.beyond = Emptier(2.0 * caches.last) if caches.last > caches.fast else None
        self.reference, self.timed = SpeedReference(threads, caches), []
        layers = LAYERS if layers is None else layers
        total = sum(len(plans) for _, plans in layers)
        for layer, plans in layers:
            for plan in plans:
                watch(len(self.timed), total, "compile")
                self.timed.append(Timed(layer.program(plan, threads)))
                self.timed[-1].time_launches(self.reference, self.ways[0])  # kernels load: not kept
                self.timed[-1].launches, self.timed[-1].host = {}, []

    @property
    def limit(self) -> np.ndarray:
        """Reference seconds up to which a row counts as undisturbed."""
        return DISTURBED * own_speed(self.timed)

    def wanted(self, rounds: int) -> list[Timed]:
        """The cases that another turn is for: all of them in the first rounds, then those that lack good rows."""
        if self.rounds < rounds:
            return self.timed
        limit = self.limit
        return [one for one in self.timed if one.good(limit) < WANTED]

    def turn(self, rounds: int, watch: Callable[[int, int, str], None]) -> None:
        """Time the wanted cases once in each way to leave the caches."""
        wanted = self.wanted(rounds)
        self.rounds += 1
        for i, one in enumerate(wanted):
            watch(i, len(wanted), f"round {self.rounds}")
            for empty in self.ways:
                one.time_launches(self.reference, empty)
            if self.beyond and one.program.state_bytes + one.program.constant_bytes > FAR:
                one.time_launches(self.reference, self.beyond)

    def fitted(self) -> tuple[Rates, list[TimedLaunch], dict]:
        """Rates, what they are fitted to, and how steady the machine was."""
        samples, steadiness = self.timed_launches()
        return Rates(rates.fit(samples, _memory(self.beyond)), rates.spread(samples)), samples, steadiness

    def timed_launches(self) -> tuple[list[TimedLaunch], dict]:
        """The launches that were timed, and how steady the machine was."""
        limit = self.limit
        samples = [s for i, one in enumerate(self.timed) for s in one.samples(self.caches, WAYS * i, limit)]
        steadiness = {
            "reference_seconds": (limit / DISTURBED).tolist(),
            "undisturbed_share": float(np.mean([slowness(r, limit) <= 1 for o in self.timed for r in o.references])),
            "disturbed_cases": sum(one.good(limit) < WANTED for one in self.timed),
            "cases": len(self.timed),
            "rounds": self.rounds,
            "seconds": time.perf_counter() - self.began,
        }
        return samples, steadiness


def own_speed(timed: list[Timed]) -> np.ndarray:
    """Seconds (3,) of the reference work while nothing disturbs it: the tenth part of all times that is fastest."""
    return np.quantile([r for one in timed for r in one.references], 0.1, axis=0)


class Emptier:
    """Fills the caches with `nbytes` of something else; 0 leaves them as they are."""

    def __init__(self, nbytes: float):
        self.nbytes = nbytes
        count = int(nbytes) // 3 // FLOAT
        self.arrays = [np.zeros(count, np.float32) for _ in range(3)] if count else None

    def __call__(self) -> None:
        if self.arrays:
            add.forward(*self.arrays)


def _memory(beyond: Emptier | None) -> float:
    """Seconds per byte of memory itself: sums of arrays that no cache holds."""
    if beyond is None:
        return 0.0
    found = []
    for _ in range(5):
        started = time.perf_counter()
        beyond()
        found.append(time.perf_counter() - started)
    return min(found) / beyond.nbytes
