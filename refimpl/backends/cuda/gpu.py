"""Memory and launches of one NVIDIA GPU, the current one of the process.

Everything is queued in one stream, in order; the host waits only where it reads. What it gives lies in pinned memory
until it was copied, and so does what it takes without waiting. A section that ran once is captured
as a CUDA graph when it runs again and replayed from then on, for Python takes longer to launch a small kernel than a
GPU to run it. Where the driver captures none, its kernels are launched one by one.
"""

import math
import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np

from ...compiler.arena import ALIGN, end_to_end
from ...compiler.ir import Launch, Step
from ...compiler.lower import Lowering, on_gpu
from ...kernels import cuda
from ..backend import Prepared
from .replay import Replayed

# Steps under way before the host waits. Each wait leaves the GPU idle while the next step is made ready and launched,
# a sixteenth of what reading every step costs; and no more than sixteen are made again where one is not finite.
AHEAD = 16
STAGED, MOST_STAGED = 1 << 20, 1 << 27  # bytes of the host's memory that the GPU copies from, at first and at most


class Gpu:
    """The backend. Its memory and arrays are Numba's arrays of the device."""

    ahead = AHEAD

    def __init__(self):
        self._staging = np.empty(0, np.uint8)  # what is to be copied to the device, side by side
        self._staged = 0  # bytes of it that are in use, as far as is known
        self._given: list[np.ndarray] = []  # what had no room there
        self._adopted: dict[int, tuple] = {}  # id of a host's array → a weak reference to it, and the device's array

    @cached_property
    def stream(self):
        """What everything is queued in."""
        return cuda.stream()

    def lower(self, step: Step, threads: int) -> dict[str, list[Launch]]:
        """By the rules of this folder; what no rule takes runs its reference kernel, a thread for each item."""
        from .rules import RULES

        return Lowering(step, threads, on_gpu).launches(RULES)

    def allocate(self, nbytes: int):
        """Zeroed bytes of the device; CudaError where there is no GPU, MemoryError where it has not as many."""
        cuda.check()
        return cuda.zeros(nbytes)

    def adopt(self, array: np.ndarray):
        """A copy of the device. Runners that share an array of the host share its copy. Errors as of `allocate`."""
        cuda.check()
        kept, there = self._adopted.get(id(array), (lambda: None, None))
        if kept() is not array:
            there = cuda.to_device(np.ascontiguousarray(array))
            self._note(array, there)
        return there

    def gather(self, arrays: Sequence[np.ndarray]) -> tuple[Any, list]:
        """Copies in one piece of the device's memory; runners to come that share a host's array share its copy."""
        starts, nbytes = end_to_end(array.nbytes for array in arrays)
        memory, made = self.allocate(max(1, nbytes)), []
        for array, start in zip(arrays, starts, strict=True):
            there = self.view(memory, start, array.nbytes, array.dtype).reshape(array.shape)
            self.write(there, array)
            self._note(array, there)
            made.append(there)
        return memory, made

    def _note(self, array: np.ndarray, there) -> None:
        self._adopted[id(array)] = weakref.ref(array), there
        weakref.finalize(array, self._forget, id(array))

    def _forget(self, key: int) -> None:
        kept, _ = self._adopted.get(key, (lambda: None, None))
        if kept() is None:  # else the number belongs to another array by now
            self._adopted.pop(key, None)

    def view(self, memory, start: int, nbytes: int, dtype):
        """A view of it."""
        return memory[start : start + nbytes].view(dtype)

    def write(self, array, values) -> None:
        """Copy, behind what is queued."""
        if 0 not in array.shape:
            given = self._room(array.shape, array.dtype)
            given[...] = values
            with cuda.told():
                array.copy_to_device(given, stream=self.stream)

    def _room(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """Memory of the host that stays as it is until what it holds was copied.

        Where there is none left it waits for the GPU, once, and has twice as much from then on, up to MOST_STAGED.
        """
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if nbytes > MOST_STAGED // 2:
            self._given.append(np.empty(shape, dtype))
            return self._given[-1]
        if self._staged + nbytes > self._staging.size:
            self.synchronise()
            if self._staging.size < MOST_STAGED:
                self._staging = cuda.pinned((max(STAGED, 2 * self._staging.size, 2 * _aligned(nbytes)),), np.uint8)
        start, self._staged = self._staged, self._staged + _aligned(nbytes)
        return self._staging[start : start + nbytes].view(dtype).reshape(shape)

    def read(self, array) -> np.ndarray:
        """A copy of the host, once all that is queued has ended."""
        with cuda.told():
            found = array.copy_to_host(stream=self.stream)
            self.synchronise()
        return found

    def finite(self, array) -> bool:
        """Read, then looked at."""
        return bool(np.isfinite(self.read(array)).all())

    def waiting(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """Pinned memory."""
        return cuda.pinned(shape, dtype)

    def copy(self, to, array) -> None:
        """Queued."""
        with cuda.told():
            if isinstance(to, np.ndarray):
                array.copy_to_host(to, stream=self.stream)
            else:
                to.copy_to_device(array, stream=self.stream)

    def ready(self, launches: Sequence[Launch], calls: Sequence[Prepared], threads: int) -> list[Prepared]:
        """One call that makes all of them."""
        return [(Replayed(self._there(calls), self.stream), [])]

    def _there(self, calls: Sequence[Prepared]) -> list[Prepared]:
        """The calls with constants of the host on the device, and the stream."""
        queued = {} if cuda.simulated() else {"stream": self.stream}
        return [
            (function, [self.adopt(a) if isinstance(a, np.ndarray) else a for a in args], queued)
            for function, args in calls
        ]

    def launch(self, calls: Sequence[Prepared]) -> None:
        """One after the other."""
        with cuda.told():
            for function, args in calls:
                if isinstance(function, Replayed):
                    function()
                else:
                    function(*self._there([(function, args)])[0][1])

    def synchronise(self) -> None:
        """Wait for the stream."""
        if not cuda.simulated():
            with cuda.told():
                self.stream.sync()
        self._given.clear()
        self._staged = 0

    def work(self, threads: int) -> AbstractContextManager:
        """Threads of the host do not matter."""
        return nullcontext()

    def working(self, threads: int) -> bool:
        """They do not."""
        return True

    def session(self) -> AbstractContextManager:
        """Nothing holds for many steps."""
        return nullcontext()


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN
