"""Compile one kernel body for plain Python, for CPU threads and for CUDA.

A reference body `body(t, *arrays, *attributes)` computes output item `t` and writes nothing else. Items may therefore
run in any order, without atomics, and a rerun gives the same bits whatever the number of threads.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from . import cuda, loops
from .kernel_cache import CACHE_DIR, KernelCache
from .running import check_fork

# Lets sums vectorise; NaN and infinity keep their meaning, which fastmath=True would take away. No "arcp": a vector's
# reciprocal would be an estimate and that of the elements left over exact, so that bits would depend on the threads.
FASTMATH = {"reassoc", "contract", "nsz"}

KERNELS: list = []  # every CPU kernel defined so far, for warm-up and for counting cache misses


def fast(function: Callable, parallel: bool = True, fastmath=FASTMATH) -> Callable:
    """Compile a hand-written CPU kernel (`prange` over fixed tiles, no allocation), cached on disk.

    parallel: False for work too small for threads. fastmath: False where each operation is rounded as it stands, so
    that every processor gives the same bits.
    """
    compiled = njit(parallel=parallel, fastmath=fastmath, error_model="numpy")(function)
    if compiled is not function:  # as NUMBA_DISABLE_JIT leaves it, for counting which lines the tests run
        cached(compiled, function, compiled.targetoptions)
    KERNELS.append(compiled)
    return compiled


def cached(compiled, function: Callable, options) -> None:
    """Let a function that Numba compiles with these options use the disk cache, as `cache=True` does Numba's own."""
    if CACHE_DIR is not None:
        compiled._cache = KernelCache(function, options)


def inline(function: Callable) -> Callable:
    """Compile a helper that fast kernels call inside their loops."""
    return njit(fastmath=FASTMATH, error_model="numpy", inline="never")(function)


def inlined(function: Callable) -> Callable:
    """The same, put in the place of each call: where handing on the arguments would take longer than the work."""
    return njit(fastmath=FASTMATH, error_model="numpy", forceinline=True)(function)


def helper(function: Callable) -> Callable:
    """Let bodies call `function`: it is compiled with them on CPU and CUDA, and stays plain Python in plain Python."""
    cuda.HELPERS.add(function)
    return register_jitable(function)


class Kernel:
    """`kernel(items, *args)` runs `body(t, *args)` for every t < items, on the device that holds the arrays."""

    def __init__(self, body: Callable):
        self.body = body
        self.name = f"{body.__module__}.{body.__name__}"
        self.cpu = _cpu_loop(body)
        self.gpu = GpuLoop(body)

    def __call__(self, items: int, *args) -> None:
        """Launch on the host for NumPy arrays, on the GPU for CUDA arrays; mixing them is a TypeError."""
        on_host = {isinstance(a, np.ndarray) for a in args if hasattr(a, "shape") and a.shape != ()}
        if len(on_host) > 1:
            raise TypeError(f"{self.name}: some arrays are on the host and some on the GPU; put all on one side")
        if on_host == {False}:
            self.gpu(items, *args)
        else:
            check_fork()
            self.cpu(items, *args)


class GpuLoop:
    """The form of a kernel that runs on a GPU, compiled on first use: `grid(items, *args)`."""

    def __init__(self, body: Callable):
        self.body, self.__name__, self.__module__ = body, f"{body.__name__}_grid", body.__module__

    @cached_property
    def loop(self):
        """The CUDA kernel."""
        return cuda.grid_loop(self.body)

    def __call__(self, items: int, *args, stream=0) -> None:
        """Launch it. CUDA refuses an empty grid, the simulator does not: nothing is launched for no items."""
        if items:
            blocks, threads = cuda.grid(items)
            self.loop[blocks, threads, stream](items, *args)


def _cpu_loop(body: Callable) -> Callable:
    item = njit(fastmath=FASTMATH, error_model="numpy")(body)
    # prange counts in uint64, and uint64 with int64 gives float64: the loop converts t once
    loop = loops.build(body, f"{body.__name__}_loop", ["for t in prange(items):"], item=item, prange=prange)
    return fast(loop)


def cache_misses() -> int:
    """Signatures that this process had to compile because the disk cache did not hold them."""
    return sum(sum(k.stats.cache_misses.values()) for k in KERNELS)
