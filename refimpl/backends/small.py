"""Launches that are too little work for a second thread.

To start threads and to wait for them costs some 2 µs on an idle machine, and up to some milliseconds where other
programs use the cores. Bits do not depend on the number of threads, so it can be chosen for each launch.
"""

from collections.abc import Callable, Iterable

import numba
from numba.np.ufunc import parallel

from ..compiler.ir import Launch
from ..kernels.running import start

# Bytes that a launch reads and writes, below which it runs alone. No kernel computes much on so little: of LeNet-5,
# MobileNetV2 and ResNet-18 such launches take 1 to 13 µs on one thread of a server, 3 µs in the middle.
SMALL = 1 << 14


def alone(launch: Launch) -> bool:
    """Does a launch run on one thread, whatever the program's number?"""
    return launch.moved_bytes < SMALL


def in_turns(
    launches: Iterable[Launch], prepared: Iterable[tuple[Callable, list]], threads: int
) -> list[tuple[Callable, list]]:
    """The calls of launches, to be made where `threads` threads are set, and between them those that change these.

    threads: no more than Numba has.
    """
    start()  # the threading layer, which brings the function below
    # Numba's own set_num_threads takes two locks and costs as much as what it is to save
    change = getattr(parallel, "_set_num_threads", numba.set_num_threads)
    calls, now = [], threads
    for launch, call in zip(launches, prepared, strict=True):
        wanted = 1 if alone(launch) else threads
        if wanted != now:
            calls.append((change, [wanted]))
        calls.append(call)
        now = wanted
    if now != threads:
        calls.append((change, [threads]))
    return calls
