"""Work that is queued on a GPU, timed by CUDA events: steps of ours, single layers of ours, and PyTorch's."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import refimpl as ri
from costmodel.device.gpu_calibration import queue_step
from refimpl.backends.cuda.replay import Replayed
from refimpl.kernels import cuda

CALLS = 10  # between two events; no more steps than a run has under way
FEW = 4  # so few that no step of ours waits for room for its samples
WARM = 2  # rounds before those that count: they compile, load and capture


@dataclass(frozen=True)
class Queued:
    """Work of one side. queue: queue one call of it.

    timed: the GPU's seconds between before and after all that a function queues, and those in which it was queued.
    """

    queue: Callable[[], object]
    timed: Callable[[Callable[[], None]], tuple[float, float]]

    def milliseconds(self, repeats: int) -> list[float]:
        """Of a call, `repeats` times."""
        return [1e3 * self.seconds()[0] for _ in range(repeats + WARM)][WARM:]

    def seconds(self, calls: int = CALLS) -> tuple[float, float]:
        """Of one of so many calls on the GPU, and those that Python takes to queue it."""
        on_gpu, queued = self.timed(lambda: [self.queue() for _ in range(calls)] and None)
        return on_gpu / calls, queued / calls


def of_ours(backend, queue: Callable[[], object]) -> Queued:
    """What a backend of ours queues."""
    return Queued(queue, lambda queue: cuda.timed(backend.stream, queue))


def of_torch(torch, queue: Callable[[], object]) -> Queued:
    """What PyTorch queues, with products in float32, as ours."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def timed(queue):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        started = time.perf_counter()
        queue()
        queued = time.perf_counter() - started
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3, queued

    return Queued(queue, timed)


def steps_of(trainer, x: np.ndarray, y: np.ndarray) -> Queued:
    """Steps of a trainer, under way together as those of a run; what came of them is looked at behind the last event.

    As in a run the host waits where pinned memory has no more room for batches, large ones alone.
    """

    def timed(queue):
        found = cuda.timed(trainer.backend.stream, queue)
        trainer.settle()
        return found

    return Queued(lambda: queue_step(trainer, x, y), timed)


def replayed(trainer: ri.Trainer) -> dict:
    """captured: are all sections of its steps replayed as graphs; why_not: the driver's reason, or ours, else None."""
    ready = (trainer.runner.ready(section, trainer.program.batch) for section in trainer.program.sections)
    sections = [call for calls in ready for call, _ in calls if isinstance(call, Replayed)]
    why = next((section.why for section in sections if section.why), None)
    return {"captured": all(section.graph is not None for section in sections), "why_not": why}


def launch_share(work: Queued) -> float:
    """The share of its time in which Python queues it; near 1 the GPU waits for Python."""
    work.milliseconds(0)
    seconds, queues = work.seconds(FEW)
    return queues / seconds


class QueuedLayer:
    """The launches of one layer in a section of a step of ours on the GPU, replayed as a section of their own.

    made: the array of the layer that they write, default all that it has in the section.
    """

    def __init__(
        self, graph: ri.Graph, plan: ri.Plan, batch: int, section: str, node: str, made: str | None = None
    ):  # fmt: skip
        trainer = ri.Trainer(ri.compile(graph, plan, batch, backend="cuda"))
        self.runner, self.backend = trainer.runner, trainer.backend
        trainer.rehearse(np.zeros((batch, *graph.size, graph.channels), np.float32), np.zeros(batch, int))
        own, belongs = [], False
        for launch, prepared in self.runner.present(section, batch):
            if launch.covers:  # one without adds the slices of the launch before it
                belongs = any(self.of(call, node, made) for call in launch.covers)
            if belongs:
                own.append((launch, prepared))
        self.calls = [call for launch, _ in own for call in launch.covers if self.of(call, node, made)]
        self.ready = self.backend.ready([launch for launch, _ in own], [prepared for _, prepared in own], 1)

    @staticmethod
    def of(call, node: str, made: str | None) -> bool:
        """Is a call the node's, and does it write that array?"""
        return call.node == node and (made is None or made in call.passed.writes)

    def array(self, name: str):
        """The array of that name of one of the calls, on the GPU."""
        return self.runner.array(next(call.arrays[name] for call in self.calls if name in call.arrays))

    def put(self, name: str, values: np.ndarray) -> None:
        """Fill one of them."""
        there = self.array(name)
        self.backend.write(there, values.reshape(there.shape))

    def put_parameter(self, name: str, values: np.ndarray) -> None:
        """Fill a parameter."""
        self.backend.write(self.runner.parameter(name), values)

    def get(self, name: str) -> np.ndarray:
        """A copy of one of the arrays, once all that is queued has ended."""
        return self.backend.read(self.array(name))

    def queue(self) -> None:
        """Queue the launches."""
        self.backend.launch(self.ready)

    def milliseconds(self, repeats: int) -> list[float]:
        """See `Queued`."""
        return of_ours(self.backend, self.queue).milliseconds(repeats)
