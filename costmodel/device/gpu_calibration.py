"""Measure a GPU: time every launch of training steps of single layers there, and fit the rates of its kernels.

A launch is queued many times in a row as a section of its own, which the backend replays as a whole, so that its time
is what it takes between others and not what Python takes to make it: by CUDA events before and after all of them.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

import refimpl as ri
from refimpl.backends.cuda.gpu import Gpu
from refimpl.compiler.executed import Counted, executed
from refimpl.kernels import cuda

from . import gpu, rates
from .calibration import LAYERS as EVERY
from .calibration import LayerCase
from .kernels import HOST, kernel
from .rates import Rates, TimedLaunch

LAYERS = [(case, plans) for case, plans in EVERY if not case.bits]
QUEUED = 20  # launches that are waited for together
ROUNDS = 5  # times that each is measured; the median counts
OTHERS = 3  # processes one after the other whose contexts are measured; the least counts, for others free and take
LARGER = 8  # times the batches of the cases of a CPU: a GPU has more to do at once


def measure(
    counted: Counted, watch: Callable[[int, int, str], None], seconds: float = 240.0,
    layers: Sequence[tuple[LayerCase, tuple]] = LAYERS, larger: int = LARGER,
) -> tuple[Rates, dict]:  # fmt: skip
    """Rates of every kernel of the layers on the GPU, and how many cases were timed in the seconds there are.

    counted: the operations by unit of a call. CudaError where there is no GPU.
    """
    began, samples, done = time.perf_counter(), [], 0
    cases = [(case, plan) for case, plans in layers for plan in plans]
    order = np.random.default_rng(0).permutation(len(cases))  # of all kinds, however soon the time is over
    for i, (case, plan) in enumerate(cases[place] for place in order):
        if i and time.perf_counter() - began > seconds:
            break
        watch(i, len(cases), case.kind)
        timed = TimedProgram(case.program(plan, 1, gpu.BACKEND, larger))
        samples += [*timed.launches(counted, i), *timed.around(i)]
        done = i + 1
    steadiness = {"cases": done, "of": len(cases), "seconds": time.perf_counter() - began}
    return Rates(rates.fit(samples), rates.spread(samples)), steadiness


def context_bytes() -> int | None:
    """Bytes of the GPU's memory that a process takes before it allocates any: its context, and what comes with it.

    As many are free less when another process has opened one; None where none can, as on a GPU that is one process's
    alone. 0 in the simulator. CudaError where there is no GPU.
    """
    cuda.check()
    if cuda.simulated():
        return 0
    taken = [_taken_by_another() for _ in range(OTHERS)]
    known = [nbytes for nbytes in taken if nbytes is not None]
    return min(known) if len(known) == OTHERS else None


def _taken_by_another() -> int | None:
    opens = "import sys; from refimpl.kernels import cuda; cuda.zeros(1); print(flush=True); sys.stdin.read()"
    before = cuda.free_bytes()
    with subprocess.Popen([sys.executable, "-c", opens], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout
        opened = other.stdout.readline()  # it holds one now; nothing comes from one that has ended
        taken = before - cuda.free_bytes()
        other.stdin.close()
    return max(0, taken) if opened else None


class TimedProgram:
    """A program whose launches are timed."""

    def __init__(self, program: ri.Program):
        assert program.size and program.graph.channels, "layers are those of maps"
        n, rng = program.batch, np.random.default_rng(0)
        self.program, self.trainer = program, ri.Trainer(program)
        self.runner, self.backend = self.trainer.runner, self.trainer.backend
        self.x = rng.standard_normal((n, *program.size, program.graph.channels), dtype=np.float32)
        self.y = rng.integers(0, program.graph.shape(program.graph.output)[1], n)

    def fill(self) -> None:
        """Put the host's arrays in place again: the arena reuses their memory after their last reader."""
        step, n = self.program.step, self.program.batch
        given = {"input": self.x, "labels": self.y}
        for name in step.host_writes:
            value = given[name] if name in given else step.scalars[name](1, 10, 0) if name in step.scalars else 1
            self.runner.write(name, n, value)

    def launches(self, counted: Counted, case: int) -> list[TimedLaunch]:
        """The seconds of each launch, in the order of a step."""
        program, n, found = self.program, self.program.batch, []
        terms = gpu.work(program, (executed(launch, n, counted) for launch in program.order))
        self.fill()
        pairs = [pair for section in program.sections for pair in self.runner.present(section, n)]
        for (launch, prepared), amounts in zip(pairs, terms, strict=True):
            queue = self.backend.ready([launch] * QUEUED, [prepared] * QUEUED, 1)
            self.waited(queue)  # loads what is to be captured
            self.waited(queue)
            times = [self.on_gpu(queue) / QUEUED for _ in range(ROUNDS)]
            found.append(TimedLaunch(kernel(launch), amounts, float(np.median(times)), case))
        return found

    def on_gpu(self, queue: Sequence) -> float:
        """Seconds of a queue of launches there; in the simulator, which has no events, those of the host."""
        if cuda.simulated() or not isinstance(self.backend, Gpu):
            return self.waited(queue)
        return cuda.timed(self.backend.stream, lambda: self.backend.launch(queue))[0]

    def waited(self, queue: Sequence) -> float:
        """Seconds of a queue of launches, until the last has ended."""
        started = time.perf_counter()
        self.backend.launch(queue)
        self.backend.synchronise()
        return time.perf_counter() - started

    def around(self, case: int) -> list[TimedLaunch]:
        """The seconds of a step of a run that are none of its sections; of none where the program only infers."""
        if not self.program.training:
            return []
        steps, sections, n = [], [], self.program.batch
        for _ in range(ROUNDS + 1):  # the first compiles, loads and captures
            steps.append(self.of_a_step())
            queue = [call for section in self.program.sections for call in self.runner.ready(section, n)]
            self.fill()
            sections.append(self.on_gpu(queue))
        seconds = float(np.median(steps[1:]) - np.median(sections[1:]))
        return [TimedLaunch(HOST, {"call": 1.0}, max(seconds, 1e-9), case)]

    def of_a_step(self) -> float:
        """Seconds of each of as many steps as a run waits for together, with the look at what came of them."""
        started = time.perf_counter()
        for _ in range(self.backend.ahead):
            queue_step(self.trainer, self.x, self.y)
        self.trainer.settle()
        return (time.perf_counter() - started) / self.backend.ahead


def queue_step(trainer: ri.Trainer, x: np.ndarray, y: np.ndarray) -> None:
    """Queue a step on x (n, H, W, C) and y (n,) as a run of one step does, which waits for it in `trainer.settle` only.

    A trainer's first step is waited for. Who queues more than `backend.ahead` of them settles in between.
    """
    with trainer.backend.work(trainer.program.threads):
        trainer._make(lambda: (x, y), 1)  # `Trainer.steps` would gather a batch for each, which no peer of a bench does
