"""Compile one kernel body for plain Python, for CPU threads and for CUDA, and cache what Numba compiled.

A reference body `body(t, *arrays, *attributes)` computes output item `t` and writes nothing else. Items may therefore
run in any order, without atomics, and a rerun gives the same bits whatever the number of threads.
"""

import hashlib
import inspect
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from numba import njit, prange
from numba.core.caching import FunctionCache
from numba.extending import register_jitable

THREADS_PER_BLOCK = 128
UNUSED = 7 * 24 * 3600  # seconds after which the kernel cache of another version is deleted
# Lets sums vectorise; NaN and infinity keep their meaning, which fastmath=True would take away.
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


DEFINES_KERNELS = re.compile(rb"^from \.+(kernel import|passes import .*\bdeclare\b)", re.MULTILINE)


def source_hash() -> str:
    """Hash of every source file that can hold compiled code: for other sources a cached kernel is stale.

    Numba sees a change of the kernel's own file, so what counts is what kernels of other files use. Compiled helpers
    are defined through this module and bodies through `passes.declare`: a file that imports neither cannot change a
    kernel. Bodies of `ops` and `methods` call nothing of each other's files, so these count for themselves only.
    """
    root = Path(__file__).parent
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__} {sys.version}".encode())
    for path in sorted(root.rglob("*.py")):
        source = path.read_bytes()
        if path.parent.name in ("ops", "methods"):
            continue
        if path.name == "kernel.py" or DEFINES_KERNELS.search(source):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + source)
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    """The user's cache folder for compiled kernels: `GRADLEDGER_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`."""
    if chosen := os.environ.get("GRADLEDGER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradledger"


def _open_cache() -> Path | None:
    """Make this version's cache folder and delete old ones of other versions; None where nothing can be written."""
    root = _cache_root()
    folder = root / f"numba-{numba.__version__}-{source_hash()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        print(
            f"gradledger: the kernel cache folder {root} is not writable, so kernels compile anew in each process; "
            "set GRADLEDGER_CACHE to a writable folder",
            file=sys.stderr,
        )
        return None
    os.utime(folder)
    for old in root.glob("numba-*"):
        # another version may be running at this moment: only what nobody has opened for a week goes
        if old != folder and time.time() - old.stat().st_mtime > UNUSED:
            shutil.rmtree(old, ignore_errors=True)
    return folder


CACHE_DIR = _open_cache()
if CACHE_DIR is not None:
    numba.config.CACHE_DIR = str(CACHE_DIR)  # read when a kernel is defined, so it is set before the first one
CACHED = CACHE_DIR is not None

KERNELS: list = []  # every CPU kernel defined so far, for warm-up and for counting cache misses


class KernelCache(FunctionCache):
    """Numba's disk cache, but a kernel that comes from it forgets its LLVM code.

    Numba keeps that for compiled callers to inline, and no compiled code calls a kernel: some 0.5 MiB each.
    """

    def load_overload(self, signature, target_context):
        """The compiled kernel, or None where the disk holds none."""
        found = super().load_overload(signature, target_context)
        if found is not None:
            found.library._shared_module = None  # private to Numba; where it has another name nothing is lost
        return found


def fast(function: Callable, parallel: bool = True, fastmath=FASTMATH) -> Callable:
    """Compile a hand-written CPU kernel (`prange` over fixed tiles, no allocation), cached on disk.

    parallel: False for work too small for threads. fastmath: False where each operation is rounded as it stands, so
    that every processor gives the same bits.
    """
    compiled = njit(parallel=parallel, fastmath=fastmath, error_model="numpy")(function)
    if CACHED:
        compiled._cache = KernelCache(function)  # as `cache=True` would set Numba's own
    KERNELS.append(compiled)
    return compiled


def inline(function: Callable) -> Callable:
    """Compile a helper that fast kernels call inside their loops."""
    return njit(fastmath=FASTMATH, error_model="numpy", inline="never")(function)


def helper(function: Callable) -> Callable:
    """Let bodies call `function`: it is compiled with them on CPU and CUDA, and stays plain Python in plain Python."""
    return register_jitable(function)


class Kernel:
    """`kernel(items, *args)` runs `body(t, *args)` for every t < items, on the device that holds the arrays."""

    def __init__(self, body: Callable):
        self.body = body
        self.name = f"{body.__module__}.{body.__name__}"
        self.cpu = _cpu_loop(body)
        self._gpu = None

    def __call__(self, items: int, *args) -> None:
        """Launch on the host for NumPy arrays, on the GPU for CUDA arrays; mixing them is a TypeError."""
        on_host = {isinstance(a, np.ndarray) for a in args if hasattr(a, "shape") and a.shape != ()}
        if len(on_host) > 1:
            raise TypeError(f"{self.name}: some arrays are on the host and some on the GPU; put all on one side")
        if on_host == {False}:
            self.gpu(items, *args)
        else:
            self.cpu(items, *args)

    def gpu(self, items: int, *args) -> None:
        """Launch on the GPU. CUDA refuses an empty grid, the simulator does not: nothing is launched for no items."""
        if self._gpu is None:
            from . import cuda

            self._gpu = cuda.grid_loop(self.body)
        if items:
            self._gpu[-(-items // THREADS_PER_BLOCK), THREADS_PER_BLOCK](items, *args)


def _unpacked(name: str, default, lines: list[str]) -> str:
    """Expression that rebuilds the attribute `name` from scalars; `lines` gets the statements that unpack it.

    Numba cannot carry a nested tuple into a parallel loop, so the loop unpacks it outside and rebuilds it inside.
    """
    if not isinstance(default, tuple):
        if "[" not in name:
            return name
        scalar = name.replace("[", "_").replace("]", "")
        lines.append(f"    {scalar} = {name}")
        return scalar
    return "(" + ", ".join(_unpacked(f"{name}[{i}]", d, lines) for i, d in enumerate(default)) + ",)"


def loop_source(body: Callable, name: str, header: str) -> str:
    """Source of `name(items, *args)`: `header` is its loop over t; the arguments are those of `body`, by name."""
    parameters = list(inspect.signature(body).parameters.values())[1:]
    lines: list[str] = []
    call = ", ".join(_unpacked(p.name, p.default, lines) for p in parameters)
    names = ", ".join(p.name for p in parameters)
    lines = [f"def {name}(items, {names}):", *lines, f"    {header}", f"        item(np.int64(t), {call})", ""]
    return "\n".join(lines)


def build(body: Callable, name: str, header: str, **names) -> Callable:
    """Define the loop as a plain function that lives, for Numba's cache, in the file of `body`.

    Numba never reuses the cache of a function that closes over a compiled one, so `item` is a global of the loop;
    the file of `body` and a name of its own make the cache entry unique.
    """
    file = inspect.getsourcefile(body)
    scope = {"np": np, "__name__": body.__module__, "__file__": file, **names}
    exec(compile(loop_source(body, name, header), file, "exec"), scope)
    return scope[name]


def _cpu_loop(body: Callable) -> Callable:
    item = njit(fastmath=FASTMATH, error_model="numpy")(body)
    # prange counts in uint64, and uint64 with int64 gives float64: the loop converts t once
    loop = build(body, f"{body.__name__}_loop", "for t in prange(items):", item=item, prange=prange)
    return fast(loop)


def cache_misses() -> int:
    """Signatures that this process had to compile because the disk cache did not hold them."""
    return sum(sum(k.stats.cache_misses.values()) for k in KERNELS)
