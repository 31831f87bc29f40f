"""Time calls and copies in this process."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from refimpl.kernels import running


def milliseconds(
    call: Callable[[], None], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:  # fmt: skip
    """Duration of each of `repeats` calls, after two that warm up. clock: seconds, as of the processor alone."""
    times = []
    for _ in range(repeats + 2):
        start = clock()
        call()
        times.append((clock() - start) * 1e3)
    return times[2:]


def copy_bandwidth(threads: int) -> float:
    """Bytes a second, read and written together, of a copy of 64 MiB by `threads` threads: the best of nine."""
    source = np.ones(1 << 24, np.float32)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        best = min(milliseconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), 9))
    return 2 * source.nbytes / best * 1e3


def our_threads(threads: int):
    """Our kernels' threads and a single-threaded BLAS."""
    return running.threads(threads)
