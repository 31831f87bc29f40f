"""Which plan to train with: the Pareto front of memory, time and expected gradient error, within limits.

The search goes over the methods that state a grid, the number of last convolutions that train, BATCHES and PRECISIONS.

    screened   every candidate: memory and seconds from the closed forms of each method's step (`advice.screening`),
               each times the ratio of compiled to screened figures of compiled candidates nearby, mostly of its method
    compiled   those that may be on the front: memory to the byte, seconds as `costmodel.predict` tells them. Only these
               are ever returned

The gradient error is looked up (`costmodel.advice.expected_error`); it needs no compiling.

Candidates are compiled one by one: least error within the limits first, then least time and least memory, then the one
of the front that is farthest from what is compiled. After each the ratios are known better. Where the front is
exhausted, those follow that would be on it if they needed less by one of DOUBTS. With `most` candidates compiled
before, the front is shown with gaps, and one that was not compiled may be better than one that was.

A plan has to fit the device too, as `budget.fits` tells with one mini-batch of data, whatever the limits are.

Readings [ours]: memory is state and arena, as `memory_limit` has it everywhere; an epoch is a step on each full batch
and one on what is left; the middle of the predicted seconds counts. Bias-only training and methods that choose which
samples or blocks enter are not searched: their gradients are no approximation of the same gradient. SGD has a momentum
of 0.9, sparse update has none, as for `gradledger adapt`.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refimpl.compiler.compile import compile
from refimpl.compiler.program import Program
from refimpl.graph import Graph
from refimpl.methods.optim import CLIP_NORM, MOMENTUM, SGD
from refimpl.methods.registry import known
from refimpl.plan.plan import Backprop, Plan, counted

from .. import predict
from ..device import process
from ..device.device import Device
from . import budget, expected_error
from .screening import Screen

LEARNING_RATE = 0.01
MOST, WORK = 60, 16_000  # candidates to compile, and calls of theirs: at most so many; 17 of MobileNetV2's candidates
LEAST = 1e-12  # of a figure whose logarithm is taken
EXTRA = 8  # more for each question that is left where nothing fits
DOUBTS = (0.0, 0.1, 0.3)  # shares by which a candidate may need less than the corrected screening says, in turn
MEMORY, SECONDS, ERROR, SHARE = 0, 1, 2, 3  # columns of figures; share: of the device's memory, 1 is all of it
CORRECTED = [MEMORY, SECONDS, SHARE]


@dataclass(frozen=True)
class SearchedMethod:
    """A method and the values of its setting that are searched; None where it has none."""

    name: str
    rule: type | None = None
    setting: str | None = None
    values: tuple = (None,)


def searched() -> tuple[SearchedMethod, ...]:
    """The methods that state a grid."""
    found = [(name, method, method.states.grid) for name, method in known().items() if method.states.grid]
    return tuple(
        SearchedMethod(name, None if method.states.kind == "plain" else method, grid.setting, grid.values)
        for name, method, grid in found
    )


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
PRECISIONS = ("float32",)  # float64 is for gradient checks


@dataclass(frozen=True)
class Candidate:
    """A way to train: a method, its setting, how many last convolutions, the batch and the dtype."""

    method: SearchedMethod
    value: float | None
    train_last: int
    batch: int
    precision: str

    @property
    def text(self) -> str:
        """The method as `--method` takes it."""
        return self.method.name if self.value is None else f"{self.method.name}:{self.method.setting}={self.value}"

    @property
    def plan(self) -> Plan:
        """What to compile."""
        rules = () if self.method.rule is None else (self.method.rule(**{self.method.setting: self.value}),)
        momentum = 0.0 if self.method.rule and self.method.rule.states.plain_sgd else MOMENTUM
        return Plan(self.train_last, rules, Backprop(SGD(LEARNING_RATE, momentum), CLIP_NORM))


@dataclass(frozen=True)
class Limits:
    """Most bytes of state and arena, most seconds of an epoch; infinity where there is no limit.

    share: of the device's memory; 1 where a plan has to fit it.
    """

    memory: float = np.inf
    seconds: float = np.inf
    share: float = 1.0

    def hold(self, figures: np.ndarray) -> np.ndarray:
        """Which rows of (…, 4) figures keep to all."""
        return (
            (figures[..., MEMORY] <= self.memory)
            & (figures[..., SECONDS] <= self.seconds)
            & (figures[..., SHARE] <= self.share)
        )


@dataclass(frozen=True)
class Priced:
    """A compiled candidate. seconds, step_seconds: low, mid, high of an epoch and of a step; fits: `budget.fits`."""

    candidate: Candidate
    state_bytes: int
    peak_bytes: int
    constant_bytes: int
    seconds: dict[str, float]
    step_seconds: dict[str, float]
    steps: int
    fits: dict
    error: expected_error.ExpectedError

    @property
    def memory_bytes(self) -> int:
        """What a memory limit bounds: state and arena."""
        return self.state_bytes + self.peak_bytes

    @property
    def share(self) -> float:
        """The largest share of one of the device's memories that it needs; 0 where the device's memory is not known."""
        needs, has = self.fits["needs"], self.fits["has"]
        return max((needs[kind] / has[kind] for kind in needs if has[kind]), default=0.0)

    @property
    def figures(self) -> tuple[float, float, float, float]:
        """Memory, seconds of an epoch, error, share of the device's memory."""
        return self.memory_bytes, self.seconds["mid"], self.error.error, self.share


@dataclass(frozen=True)
class BindingConstraints:
    """Why nothing fits. constraints: of memory and time, those that no candidate keeps, both where some keep each alone
    and none both; device alone where its memory is too small for every candidate.

    least_share: the candidate that needs least of the device's memory. The others are None where that is too much.
    least_memory, least_seconds: the candidates that need least of one, whatever they need of the other. memory_within:
    that needs least memory within the time limit, so that its memory is the smallest limit that works beside it; None
    where no candidate is within. seconds_within: the other way round.
    """

    constraints: tuple[str, ...]
    together: bool
    least_share: Priced
    least_memory: Priced | None = None
    least_seconds: Priced | None = None
    memory_within: Priced | None = None
    seconds_within: Priced | None = None


@dataclass(frozen=True)
class Advice:
    """What was found. front: by rising error; others: compiled too, but dominated or beyond a limit.

    binding: why the front is empty, else None. complete: was every candidate of the screened front compiled?
    """

    front: list[Priced]
    others: list[Priced]
    binding: BindingConstraints | None
    searched: int
    complete: bool


def front(figures: np.ndarray) -> list[int]:
    """The rows of figures (M, 3 or 4) that no other row is as good as in the first three columns, small being good.

    One of equal rows. By rising third column; each row is compared with the staircase of the first two columns of the
    rows before it.
    """
    found, first, second = [], [], []
    for i in np.lexsort((figures[:, SECONDS], figures[:, MEMORY], figures[:, ERROR])):
        a, b = figures[i, :2]
        place = bisect_right(first, a)
        if place and second[place - 1] <= b:
            continue
        end = place
        while end < len(second) and second[end] >= b:
            end += 1
        begin = place - 1 if place and first[place - 1] == a else place
        first[begin:end], second[begin:end] = [a], [b]
        found.append(int(i))
    return found


class Search:
    """The candidates of a net on a device, screened, and those that were compiled."""

    def __init__(
        self, graph: Graph, device: Device, samples: int, backend: str = "fast", threads: int | None = None,
        methods: Sequence[SearchedMethod] | None = None, batches: Sequence[int] = BATCHES,
        table: expected_error.ErrorTable | None = None,
    ):  # fmt: skip
        """samples: of an epoch; backend, threads: as for `compile`; table: of gradient errors, default the package's.
        methods: default those that state a grid and were measured on the table's nets.

        ValueError where a method does not fit the net, or samples are below 1.
        """
        if samples < 1:
            raise ValueError(f"an epoch must have at least 1 sample, got {samples}")
        self.graph, self.device, self.samples, self.backend = graph, device, samples, backend
        self.threads = threads
        self.table = table or expected_error.shipped()
        if methods is None:
            methods = tuple(m for m in searched() if self.table.measured(m.name))
        self.methods = methods
        self.convolutions = len(counted(graph))
        self.candidates: list[Candidate] = []
        self.compiled: dict[int, Priced] = {}
        self._inferences: dict[tuple, Program] = {}  # by batch and dtype
        self.calls = 1  # of the longest step
        batches = [b for b in batches if b <= samples]
        rows = [self._screened(method, batches) for method in methods]
        self.screened = np.concatenate(rows)
        self._method = np.array([methods.index(c.method) for c in self.candidates])
        scale = max(self.convolutions, 1)
        self._places = np.array([
            (c.train_last / scale, np.log2(c.batch) / 7, c.method.values.index(c.value) / len(c.method.values))
            for c in self.candidates
        ])  # fmt: skip

    def _screened(self, method: SearchedMethod, batches: Sequence[int]) -> np.ndarray:
        """Append a method's candidates; returns their figures (M, 3)."""
        middle = method.values[len(method.values) // 2]
        plan = replace(Candidate(method, middle, 0, 1, PRECISIONS[0]).plan, train_last="all")
        points = [(batch, value) for batch in batches for value in method.values]
        found = []
        for precision in PRECISIONS:
            screen = Screen(self.graph, plan, method.setting, precision)
            self.calls = max(self.calls, screen.calls)
            memory, seconds = screen.at(points, self.device, self.threads or self.device.cores)
            for k in range(0 if method.rule is None else 1, self.convolutions + 1):
                errors = {value: self.error(method, value, k).error for value in method.values}
                for j, (batch, value) in enumerate(points):
                    self.candidates.append(Candidate(method, value, k, batch, precision))
                    epoch = seconds[k, j] * self.samples / batch
                    found.append((memory[k, j], epoch, errors[value], self._share(memory[k, j], batch, precision)))
        return np.array(found).reshape(-1, 4)

    def _share(self, memory: float, batch: int, precision: str) -> float:
        """About what share of the device's RAM a candidate needs; 0 where that is not known."""
        if not self.device.ram_bytes:
            return 0.0
        if self.device.flash_bytes or not self.device.base:
            return memory / self.device.ram_bytes
        weights = sum(p.nbytes(precision) for p in self.graph.parameters.values())
        inputs = (self.graph.tensors[name] for name in self.graph.inputs)
        sample = sum(math.prod(t.shape) * np.dtype(t.dtype or precision).itemsize for t in inputs)
        return (self.device.base.fixed + memory + weights + 2 * batch * sample) / self.device.ram_bytes

    def error(self, method: SearchedMethod, value: float | None, train_last: int) -> expected_error.ExpectedError:
        """What is expected of the gradient of a method's last convolutions."""
        return self.table.error(self.graph.name, method.name, value, train_last, self.convolutions)

    def _seconds(self, program: Program, n: int) -> dict[str, float]:
        """Seconds of a step, of an estimate without calls: nobody asks for operations."""
        return predict.Estimate(program, n, {}, self.device, predict.turns_of(program, n)).seconds

    def price(self, i: int) -> Priced:
        """Compile candidate number i, and price it exactly."""
        if i not in self.compiled:
            c = self.candidates[i]
            program = compile(
                self.graph, c.plan, c.batch, backend=self.backend, threads=self.threads, dtype=np.dtype(c.precision)
            )
            full, rest = divmod(self.samples, c.batch)
            step = self._seconds(program, c.batch)
            last = self._seconds(program, rest) if rest else dict.fromkeys(step, 0.0)
            resident = process.with_a_batch(program, self.device.base, self._inference(program))
            self.compiled[i] = Priced(
                c, program.state_bytes, program.peak_bytes, program.constant_bytes,
                {k: full * step[k] + last[k] for k in step}, step, full + bool(rest),
                budget.fits(program, self.device, resident and sum(resident.values())),
                self.error(c.method, c.value, c.train_last),
            )  # fmt: skip
        return self.compiled[i]

    def _inference(self, program: Program) -> Program | None:
        """The program that evaluates beside a step: the same for all candidates of a batch."""
        key = program.batch, program.dtype
        if self.device.base and key not in self._inferences:
            self._inferences[key] = compile(
                self.graph, None, program.batch, backend=self.backend, threads=self.threads, dtype=program.dtype
            )
        return self._inferences.get(key)

    def figures(self, doubt: float = 0.0) -> np.ndarray:
        """Memory, seconds, error and share of every candidate: exact where compiled, else screened and corrected.

        doubt: share by which what is not compiled may need less than that.
        """
        found = self.screened.copy()
        known = list(self.compiled)
        if known:
            exact = np.array([self.compiled[i].figures for i in known])
            screened = self.screened[known][:, CORRECTED]
            ratios = np.log(np.maximum(exact[:, CORRECTED], LEAST) / np.maximum(screened, LEAST))
            away = np.square(self._places[:, None] - self._places[known]).sum(2)
            other = self._method[:, None] != self._method[known]
            trained = np.maximum(self._places[:, None, 0], self._places[known, 0])
            weights = 1 / (away + 1e-4 + other * trained)  # methods differ in what trains, not in what is frozen
            found[:, CORRECTED] *= (1 - doubt) * np.exp(weights @ ratios / weights.sum(1, keepdims=True))
            found[known] = exact
        return found

    def advise(
        self, limits: Limits, most: int | None = None, watch: Callable[[int, int, str], None] = lambda *_: None
    ) -> Advice:
        """Compile what may be on the front within the limits, at most `most` candidates; None: as MOST and WORK say."""
        most = min(MOST, max(1, WORK // self.calls)) if most is None else most
        rest = self._anchor()
        while rest is not None and len(self.compiled) < most:
            watch(len(self.compiled), most, self.candidates[rest].text)
            self.price(rest)
            rest = self._anchor()
            rest = self._next(limits) if rest is None else rest
        complete = self._next(limits) is None
        best = self._best(limits)
        binding = None if best else self.binding(limits)
        best = best or self._best(limits)  # what was compiled on the way may fit after all
        others = [p for p in self.compiled.values() if p not in best]
        return Advice(best, others, None if best else binding, len(self.candidates), complete)

    def _best(self, limits: Limits) -> list[Priced]:
        """The front of the compiled candidates within the limits, by rising error."""
        fitting = [p for p in self.compiled.values() if limits.hold(np.array(p.figures))]
        return [fitting[i] for i in front(np.array([p.figures for p in fitting]).reshape(-1, 4))]

    def _anchor(self) -> int | None:
        """A candidate in the middle of a method of which none is compiled, for its ratios; None where each has one."""
        for method in range(self._method.max() + 1):
            own = np.flatnonzero(self._method == method)
            if not any(self._method[i] == method for i in self.compiled):
                middle = np.median(self._places[own], axis=0)
                return int(own[np.square(self._places[own] - middle).sum(1).argmin()])
        return None

    def _next(self, limits: Limits) -> int | None:
        """The candidate to compile next; None where every one is compiled that may be on the front.

        First those that are on it by the corrected figures, then those that are if they need less by one of DOUBTS.
        """
        for doubt in DOUBTS:
            figures = self.figures(doubt)
            fitting = np.flatnonzero(limits.hold(figures))
            best = fitting[front(figures[fitting])]
            left = [int(i) for i in best if i not in self.compiled]
            for column in (ERROR, SECONDS, MEMORY):
                least = int(best[figures[best, column].argmin()]) if left else None
                if least in left:
                    return least
            if left:
                return self._farthest(figures, best, left)
        return None

    def _farthest(self, figures: np.ndarray, best: np.ndarray, left: list[int]) -> int:
        """Of `left`, the candidate that is farthest from the nearest compiled one of the front, in shares of it."""
        place = np.column_stack([np.log(figures[:, :2]), figures[:, ERROR]])
        place = place / np.maximum(np.ptp(place[best], axis=0), 1e-12)
        known = [i for i in best if i in self.compiled]
        return left[int(np.square(place[left][:, None] - place[known]).sum(2).min(1).argmax())]

    def _least(self, column: int, within: Limits) -> Priced | None:
        """The compiled candidate that needs least of a column within limits; None where none is within.

        Those that may need less are compiled first, at most EXTRA.
        """
        for _ in range(EXTRA):
            figures = self.figures(DOUBTS[-1])
            fitting = np.flatnonzero(within.hold(figures))
            least = int(fitting[figures[fitting, column].argmin()]) if len(fitting) else None
            if least is None or least in self.compiled:
                break
            self.price(least)
        known = [p for p in self.compiled.values() if within.hold(np.array(p.figures))]
        return min(known, key=lambda p: p.figures[column], default=None)

    def binding(self, limits: Limits) -> BindingConstraints:
        """Which limit keeps every candidate away, what is the best that can be had, and what limit would do."""
        smallest = self._least(SHARE, Limits(share=np.inf))
        if smallest.share > limits.share:
            return BindingConstraints(("device",), False, smallest)
        memory, seconds = self._least(MEMORY, Limits()), self._least(SECONDS, Limits())
        broken = {"memory": memory.memory_bytes > limits.memory, "time": seconds.seconds["mid"] > limits.seconds}
        together = not any(broken.values())
        return BindingConstraints(
            tuple(c for c in broken if together or broken[c]), together, smallest, memory, seconds,
            self._least(MEMORY, replace(limits, memory=np.inf)), self._least(SECONDS, replace(limits, seconds=np.inf)),
        )  # fmt: skip
