"""Memory and launches of one NVIDIA GPU, the current one of the process.

Everything is queued in one stream, in order; the host waits only where it reads. A section that ran once is captured
as a CUDA graph when it runs again and replayed from then on, for Python takes longer to launch a small kernel than a
GPU to run it. Where the driver captures none, its kernels are launched one by one.
"""

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np

from ...compiler.ir import Launch, Step
from ...compiler.lower import Lowering, on_gpu
from ...kernels import cuda
from ..backend import Prepared
from .replay import Replayed


class Gpu:
    """The backend. Its memory and arrays are Numba's arrays of the device."""

    def __init__(self):
        self._given: list[np.ndarray] = []  # to be copied to the device, as far as is known
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
            self._adopted[id(array)] = weakref.ref(array), there
            weakref.finalize(array, self._forget, id(array))
        return there

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
            given = np.empty(array.shape, array.dtype)
            given[...] = values
            with cuda.told():
                array.copy_to_device(given, stream=self.stream)
            self._given.append(given)  # until it was copied

    def read(self, array) -> np.ndarray:
        """A copy of the host, once all that is queued has ended."""
        with cuda.told():
            found = array.copy_to_host(stream=self.stream)
            self.synchronise()
        return found

    def finite(self, array) -> bool:
        """Read, then looked at."""
        return bool(np.isfinite(self.read(array)).all())

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
            self.stream.synchronize()
        self._given.clear()

    def work(self, threads: int) -> AbstractContextManager:
        """Threads of the host do not matter."""
        return nullcontext()

    def working(self, threads: int) -> bool:
        """They do not."""
        return True

    def session(self) -> AbstractContextManager:
        """Nothing holds for many steps."""
        return nullcontext()
