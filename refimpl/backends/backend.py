"""The seam between a compiled step and what runs it: memory, launches, and the kernels that cover logical calls.

A runner allocates, fills, launches and reads through its backend alone. Whoever adds one writes a class with these
methods and registers an object of it under the name that `compile(backend=NAME)` takes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from ..compiler.arena import ALIGN
from ..compiler.ir import Launch, Step
from ..kernels.running import inside, single_threaded_blas, threads, turn
from .finite import all_finite
from .small import in_turns

Prepared = tuple[Callable, list]  # a kernel and its arguments


class Backend(Protocol):
    """What a program runs on. `Memory` and `Array` are the backend's own: a NumPy array on the host, say.

    ahead: steps that may be under way before the host looks at what came of them; 1 where a kernel has ended when its
    launch returns.
    """

    ahead: int

    def lower(self, step: Step, threads: int) -> dict[str, list[Launch]]:
        """Launches of each section, in order; together they cover every logical call once."""

    def allocate(self, nbytes: int):
        """Zeroed memory of so many bytes."""

    def adopt(self, array: np.ndarray):
        """Weights or a constant of the host as an array of this backend; on the host the same one, used in place."""

    def gather(self, arrays: Sequence[np.ndarray]) -> tuple[Any, list]:
        """What `adopt` makes of several arrays, in one memory where that is of use to its kernels, and that memory.

        They lie there in order, each from a multiple of ALIGN bytes on (`compiler.arena.end_to_end`).
        """

    def view(self, memory, start: int, nbytes: int, dtype):
        """A flat array in memory, from byte `start` on."""

    def write(self, array, values) -> None:
        """Copy values of the host into an array."""

    def read(self, array) -> np.ndarray:
        """The values of an array on the host; where it lies there, they change with it."""

    def finite(self, array) -> bool:
        """Is every element of a float array finite?"""

    def waiting(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """An array of the host that `copy` fills without making the host wait."""

    def copy(self, to, array) -> None:
        """Copy an array into another one of this backend or into one of the host's, behind what is queued.

        One of the host holds the values once `synchronise` has returned.
        """

    def ready(self, launches: Sequence[Launch], calls: Sequence[Prepared], threads: int) -> Sequence[Prepared]:
        """What is to be called, in order, for launches that are `calls` with their arguments."""

    def launch(self, calls: Sequence[Prepared]) -> None:
        """Make the calls of a section, within `work`."""

    def synchronise(self) -> None:
        """Wait until every launch has ended."""

    def work(self, threads: int) -> AbstractContextManager:
        """Where launches may be made with so many threads; ValueError where there are not as many."""

    def working(self, threads: int) -> bool:
        """Are launches of this thread made within `work(threads)` already?"""

    def session(self) -> AbstractContextManager:
        """What holds for many steps, and would take time at each."""


class Host:
    """A backend whose kernels are compiled for this processor and whose memory is that of NumPy. It has no `lower`."""

    ahead = 1

    def allocate(self, nbytes: int) -> np.ndarray:
        """Zeroed bytes, aligned."""
        raw = np.zeros(nbytes + ALIGN, np.uint8)
        start = -raw.ctypes.data % ALIGN
        return raw[start : start + nbytes]

    def adopt(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def gather(self, arrays: Sequence[np.ndarray]) -> tuple[None, list[np.ndarray]]:
        """The arrays themselves, where they are."""
        return None, list(arrays)

    def view(self, memory: np.ndarray, start: int, nbytes: int, dtype) -> np.ndarray:
        """A view of it."""
        return memory[start : start + nbytes].view(dtype)

    def write(self, array: np.ndarray, values) -> None:
        """Copy."""
        array[...] = values

    def read(self, array: np.ndarray) -> np.ndarray:
        """The array itself."""
        return array

    def finite(self, array: np.ndarray) -> bool:
        """By a kernel that makes no array."""
        return all_finite(array)

    def waiting(self, shape: tuple[int, ...], dtype) -> np.ndarray:
        """Any array."""
        return np.empty(shape, dtype)

    def copy(self, to: np.ndarray, array: np.ndarray) -> None:
        """At once."""
        to[...] = array

    def ready(self, launches: Sequence[Launch], calls: Sequence[Prepared], threads: int) -> list[Prepared]:
        """The calls, and between them those that let small ones run on one thread."""
        return in_turns(launches, calls, threads)

    def launch(self, calls: Sequence[Prepared]) -> None:
        """One after the other."""
        with turn():
            for function, args in calls:
                function(*args)

    def synchronise(self) -> None:
        """A kernel returns when it has ended."""

    def work(self, threads_: int) -> AbstractContextManager:
        """So many threads, and BLAS on one of them."""
        return nullcontext() if inside(threads_) else threads(threads_)

    def working(self, threads_: int) -> bool:
        """Are they set for this thread?"""
        return inside(threads_)

    def session(self) -> AbstractContextManager:
        """BLAS on one thread: to set that takes time."""
        return single_threaded_blas()
