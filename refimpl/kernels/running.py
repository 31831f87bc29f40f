"""Where kernels run: on as many threads as their program was compiled for, BLAS on one, and never after a fork."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numba

_lock = threading.Lock()
_here = threading.local()  # .depth: how many `threads` this thread is inside of
_holders = 0  # who wants BLAS on one thread
_limit: Any = None  # what restores the libraries' thread counts
_libraries: Any = None  # the controller of the libraries found so far …
_modules = 0  # … when so many modules had been imported
_turn, _free = threading.RLock(), nullcontext()
_missing = None  # did some of Numba's threads not start? None before they are asked for
_concurrent = False  # may several Python threads launch kernels at once?
_forked = False  # is this a child of a process in which GNU OpenMP ran?


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Every BLAS library of this process on one thread; the thread counts from before return when the last one leaves.

    Entered again, in whatever thread, it costs next to nothing.
    """
    global _holders, _limit
    with _lock:
        if not _holders:
            _limit = _controller().limit(limits=1, user_api="blas")
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _limit.restore_original_limits()


def _controller():
    """The BLAS libraries; looking for them takes milliseconds, so it is done again only where modules were imported."""
    global _libraries, _modules
    if _modules != len(sys.modules):
        from threadpoolctl import ThreadpoolController

        _libraries, _modules = ThreadpoolController(), len(sys.modules)
    return _libraries


def _depth() -> int:
    return getattr(_here, "depth", 0)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use `count` Numba threads and a single-threaded BLAS inside; restore both on leaving.

    ValueError for more threads than the process has, RuntimeError where no kernel can run (`check_fork`), MemoryError
    where there is no room for the threads.
    """
    if inside(count):
        yield
        return
    most = numba.config.NUMBA_NUM_THREADS
    if count > most:
        raise ValueError(
            f"the program is compiled for {count} threads, but this process has {most}: compile it with at most "
            f"{most}, or set NUMBA_NUM_THREADS before the first import"
        )
    check_fork()
    start()
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    _here.depth = _depth() + 1
    try:
        with single_threaded_blas():
            yield
    finally:
        _here.depth -= 1
        numba.set_num_threads(before)


def start() -> None:
    """Start Numba's threads, once. MemoryError where some did not start: the workqueue layer would wait for them.

    Numba falls back on that layer where a limit of memory leaves no room to load another one.
    """
    global _missing
    wanted = numba.config.NUMBA_NUM_THREADS
    if _missing is None:
        tasks, known = Path("/proc/self/task"), _layer()  # known: who used Numba before has waited for them
        before = len(os.listdir(tasks)) if tasks.exists() else None
        numba.get_num_threads()
        watched = not known and _layer() == "workqueue"
        _missing = watched and before is not None and len(os.listdir(tasks)) - before < wanted
    if _missing:
        raise MemoryError(f"no room for the stacks of {wanted} threads")


def _layer() -> str | None:
    """Numba's threading layer; None before its threads are started."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None


def inside(count: int) -> bool:
    """Do kernels that this thread launches run as within `threads(count)`?"""
    return _depth() > 0 and numba.get_num_threads() == count and not _forked


def turn():
    """To be held while kernels are launched: Numba's workqueue layer ends a process in which two threads do so."""
    global _concurrent
    if not _concurrent:
        _concurrent = _layer() not in (None, "workqueue")
    return _free if _concurrent else _turn


def check_fork() -> None:
    """RuntimeError in a process forked from one that ran kernels: GNU OpenMP would end it without a word."""
    if _forked:
        raise RuntimeError(
            "this process was forked from one in which kernels had run, and GNU OpenMP cannot go on after a fork: "
            "start workers with multiprocessing's spawn method, or fork before the first kernel runs"
        )


def _note_fork() -> None:
    global _forked
    _forked = _layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
