"""The one place that knows which package compiles for CUDA, and how its kernels are made, launched and waited for.

`numba-cuda` is taken where it is installed, else its successor `numba-cuda-mlir`; where both are,
GRADLEDGER_CUDA_PACKAGE names the other. The target that Numba itself once had is not used, but for its simulator
(NUMBA_ENABLE_CUDASIM=1), which needs neither a GPU nor a toolkit, and which the successor does not have.

A reference kernel has the same body here as on the CPU, called from a loop over its items. Loops that stride over the
grid are right for every number of blocks and threads.
"""

import ctypes
import gc
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from . import cuda_simulator
from .cuda_errors import CudaError, of_compiler, of_cuda, out_of_memory, words
from .cuda_parts import EXTRAS, bindings_major, lacking
from .kernel_cache import CACHE_DIR
from .loops import build

PACKAGES = {"numba_cuda": "numba.cuda", "numba_cuda_mlir": "numba_cuda_mlir.cuda"}  # package → its interface
CHOICE = "GRADLEDGER_CUDA_PACKAGE"  # which of them is to compile
DRIVER = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
THREADS = 128  # of a block of a reference kernel
at = np.uint64  # of an index that does not count from the end: `x[at(i)]`, for which no compiled code has to ask
# The loop of a kernel whose threads stride over the grid, and how its turns end. A `range` would first count its turns,
# by a division that takes longer than many an item, of which a thread mostly has one.
STRIDING, STRIDE = ("t = cuda.grid(1)", "while t < items:"), "t += cuda.gridsize(1)"
MOST_BLOCKS = 2**24 - 1  # of a grid: numba-cuda-mlir counts its threads in 32 bits
KERNELS: list = []  # every kernel made so far, for counting what was compiled
HELPERS: set[Callable] = set()  # functions that bodies call (`kernel.helper`)


def simulated() -> bool:
    """Do CUDA kernels run as Python, in Numba's simulator?"""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


@cache
def package() -> str:
    """Which of `PACKAGES` compiles. CudaError where none is installed, or not the one that is asked for."""
    if simulated():
        return "numba_cuda"
    asked = os.environ.get(CHOICE, "").replace("-", "_")
    if asked and asked not in PACKAGES:
        names = " or ".join(name.replace("_", "-") for name in PACKAGES)
        raise CudaError(f"{CHOICE} must be {names}, got {os.environ[CHOICE]}")
    found = next((name for name in PACKAGES if asked in ("", name) and find_spec(name)), None)
    if found is None and asked:
        name = asked.replace("_", "-")
        raise CudaError(f"{CHOICE} asks for {name}, which is not installed: pip install '{name}[cu12]', or [cu13]")
    if found is None:
        raise CudaError(f"no package compiles for CUDA here: {EXTRAS}")
    return found


@cache
def toolkit():
    """The interface of that package: `jit`, `grid`, `shared`, `to_device`, `types`, …"""
    warnings.filterwarnings("ignore", ".*Grid size [0-9]+ will likely result in GPU under-utilization")  # small nets do
    made = import_module(PACKAGES[package()])
    if simulated():
        cuda_simulator.take_alignments()
    elif package() == "numba_cuda_mlir":
        from .cuda_mlir import teach  # of that package alone

        teach()
    return made


@cache
def problem() -> str | None:
    """Why no GPU can be used, in one sentence that says what to do; None where one can."""
    if simulated():
        return None
    try:
        package()
        ctypes.CDLL(DRIVER)  # before the package is imported, which takes a while
    except CudaError as e:
        return str(e)
    except OSError:
        return f"there is no driver of an NVIDIA GPU here ({DRIVER} is missing): install it, or take another backend"
    try:
        if toolkit().is_available():
            return _too_old()
        toolkit().current_context()  # `is_available` hides why not
        return lacking(package()) or "CUDA finds no GPU"
    except Exception as e:  # drivers, libraries and packages each have errors of their own
        if of_compiler(e) and (found := lacking(package())):
            return found
        advice = "look at it with nvidia-smi, install its driver, or take another backend"
        return f"no GPU can be used ({words(e)}): {advice}"


def driver_version() -> tuple[int, int]:
    """The CUDA of the driver, as it tells it: (12, 9)."""
    return import_module(PACKAGES[package()] + ".cudadrv.driver").driver.get_version()


def _too_old() -> str | None:
    """Why the driver cannot run what the package compiles, in one sentence; None where it can."""
    (major, minor), needed = driver_version(), bindings_major()
    if major >= needed:
        return None
    words = f"the driver is of CUDA {major}.{minor}, and the package compiles for CUDA {needed}"
    return f"{words}: install a newer driver, or the package for this one ({EXTRAS})"


def check() -> None:
    """CudaError where no GPU can be used."""
    if found := problem():
        raise CudaError(found)


class Late:
    """Stands for what `found()` gives in the modules of kernels, which are imported where nothing compiles for CUDA."""

    def __init__(self, found: Callable[[], Any]):
        self.found = found


def _byte(word, i):
    """Byte i of a word, from −128 to 127."""
    return (((word >> (8 * i)) & 255) ^ 128) - 128


def _dots(name: str) -> Callable:
    """One of the dots of `cuda_dot` or `cuda_mlir`; in the simulator with four products."""
    if not simulated():
        module = {"numba_cuda": ".cuda_dot", "numba_cuda_mlir": ".cuda_mlir"}[package()]
        return getattr(import_module(module, __package__), name)
    byte = toolkit().jit(device=True)(_byte)

    def dot4(a, b, total):
        for i in range(4):
            total += byte(a, i) * byte(b, i)
        return total

    def dot4_unsigned(a, b, total):
        for i in range(4):
            total += byte(a, i) * ((b >> (8 * i)) & 255)
        return total

    return toolkit().jit(device=True)({"dot4": dot4, "dot4_unsigned": dot4_unsigned}[name])


late: Any = Late(toolkit)
dot4: Any = Late(lambda: _dots("dot4"))
dot4_unsigned: Any = Late(lambda: _dots("dot4_unsigned"))


def with_toolkit(function: Callable) -> Callable:
    """A function with what they stand for in the place of all that is late in its module.

    `numba-cuda` knows helpers from Numba. Its successor, which is no part of Numba, is given functions of the device.
    """
    scope = {name: value.found() if isinstance(value, Late) else value for name, value in function.__globals__.items()}
    if package() == "numba_cuda_mlir":
        for name in {*function.__code__.co_names} & scope.keys():
            if isinstance(scope[name], FunctionType) and scope[name] in HELPERS:
                scope[name] = device(scope[name])
    return FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)


@cache
def device(function: Callable):
    """A function as one of the device, which kernels can call."""
    return toolkit().jit(device=True)(with_toolkit(function))


def compiled(function: Callable):
    """The CUDA kernel of a function, compiled when it is first launched, or taken from the disk (`cuda_cache`)."""
    kernel = toolkit().jit(function)
    KERNELS.append(kernel)
    if not simulated() and CACHE_DIR is not None:
        from .cuda_cache import keep  # of packages that compile

        keep(kernel, package())
    return kernel


def jit(function: Callable):
    """The CUDA kernel of a function, with what is late in its module."""
    return compiled(with_toolkit(function))


def counted() -> tuple[int, int]:
    """Kernels that this process has ready, each for its argument types, and those of them that it compiled itself."""
    ready = sum(len(kernel.overloads) for kernel in KERNELS)
    return ready, ready - sum(sum(kernel.stats.cache_hits.values()) for kernel in KERNELS)


def grid_function(body: Callable) -> Callable:
    """The loop as a plain function `(items, *args)`, for `jit` and for compiling to PTX."""
    return build(body, f"{body.__name__}_grid", STRIDING, (STRIDE,), item=device(body), cuda=toolkit())


def grid_loop(body: Callable) -> Callable:
    """CUDA kernel `(items, *args)` that runs `body(t, *args)` for every t < items."""
    return compiled(grid_function(body))


def grid(items: int) -> tuple[int, int]:
    """Blocks, and threads of each, for so many items.

    A simulated thread is a thread of Python: a few of them show as much as one for each item would.
    """
    return (2, 2) if simulated() else (min(-(-items // THREADS), MOST_BLOCKS), THREADS)


def to_device(array: np.ndarray):
    """Copy a NumPy array to the GPU. Errors as `told`."""
    with told(array.nbytes):
        return toolkit().to_device(array)


def pinned(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array of the host whose pages stay where they are: the GPU copies from and to it while the host goes on.

    Errors as `told`.
    """
    with told(_nbytes(shape, dtype), pinned=True):
        return toolkit().pinned_array(shape, dtype)


def empty(shape: tuple[int, ...], dtype):
    """An array of the GPU, not filled. Errors as `told`."""
    with told(_nbytes(shape, dtype)):
        return toolkit().device_array(shape, dtype)


def _nbytes(shape: tuple[int, ...], dtype) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def zeros(nbytes: int):
    """Zeroed bytes of the GPU. Errors as `told`."""
    if simulated():
        return toolkit().to_device(np.zeros(nbytes, np.uint8))
    with told(nbytes):
        found = toolkit().device_array(nbytes, np.uint8)
        import_module(PACKAGES[package()] + ".cudadrv.driver").device_memset(found, 0, nbytes)
    return found


def free_bytes() -> int:
    """Bytes of the GPU's memory that nobody holds."""
    with told():
        return int(toolkit().current_context().get_memory_info()[0])


def stream():
    """A stream that waits for what is queued in none, as zeroes and copies are; in the simulator there is none."""
    if simulated():
        return 0
    with told():
        core = import_module("cuda.core")
        device = core.Device()
        device.set_current()
        return device.create_stream(options=core.StreamOptions(nonblocking=False))


@contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's collection of garbage, at an end of which memory of the GPU may be given back."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def captured(stream, queue: Callable[[], None]):
    """The CUDA graph of what `queue()` queues in `stream`, on the GPU: `graph.launch(stream)` runs it.

    No memory is given back meanwhile, which would end the capture.
    """
    builder = stream.create_graph_builder()
    with uncollected(), toolkit().defer_cleanup():
        builder.begin_building("thread_local")
        try:
            queue()
        finally:
            builder.end_building()
        graph = builder.complete()
    graph.upload(stream)
    return graph


def timed(stream, queue: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the GPU, by CUDA events around what `queue()` queues in `stream`, and those until it was queued."""
    with told():
        options = import_module("cuda.core").EventOptions(True)  # that time is kept
        first, started = stream.record(options=options), time.perf_counter()
        queue()
        queued, last = time.perf_counter() - started, stream.record(options=options)
        last.sync()
        return (last - first) / 1e3, queued


@contextmanager
def told(needed: int | None = None, pinned: bool = False) -> Iterator[None]:
    """One sentence in the place of whatever a package, a library of CUDA or the driver raises within.

    needed: bytes that are asked for in one piece; pinned: of the host. MemoryError where there is no room for them, or
    for what a launch loads; CudaError where a kernel cannot be compiled or loaded, or the GPU fails.
    """
    try:
        yield
    except Exception as e:
        if simulated() or not of_cuda(e):
            raise
        if out_of_memory(e):
            full = f"the host has no {needed:,} bytes that a GPU can copy from and to" if pinned else _room(needed)
            raise MemoryError(full) from None
        if of_compiler(e):
            refused = f"a kernel could not be compiled for this GPU ({words(e)}): take another backend"
            raise CudaError(lacking(package()) or refused) from e
        raise CudaError(
            f"the GPU stopped working ({words(e)}): what was saved before is good, start the command again to go on"
        ) from e


def _room(needed: int | None) -> str:
    """What memory there is, and was needed, in words."""
    want = "more are needed" if needed is None else f"{needed:,} are needed in one piece"
    try:
        free, total = toolkit().current_context().get_memory_info()
    except Exception:  # of a driver that has none left for its own
        return f"the GPU's memory is full, and {want}"
    return f"the GPU has {free:,} of its {total:,} bytes free, and {want}"


class Described(NamedTuple):
    """A GPU as its driver tells it. lanes: of float32 in all its multiprocessors; bandwidth: bytes a second.

    The bandwidth is the peak by clock and bus of the memory; where the driver does not tell them, that of a copy.
    """

    name: str
    capability: str
    lanes: int
    clock_hz: float
    bandwidth: float
    memory: int


LANES = {6: 128, 7: 64, 8: 128, 9: 128, 10: 128, 12: 128}  # of float32 in a multiprocessor, by the first number of its
# compute capability (CUDA C++ programming guide, arithmetic instructions: results a cycle); 8.0 has 64
USUAL_CLOCK = 1e9  # Hz, of a GPU whose driver tells none
COPIED = 1 << 26  # bytes of a copy that is timed, more than a cache holds; at most an eighth of what is free


def described() -> Described:
    """The GPU of this process; CudaError where there is none. A simulated one makes a step in about a second."""
    check()
    if simulated():
        return Described("simulated GPU", "simulated", 1, 1e6, 1e6, 1 << 30)
    with told():
        device, context = toolkit().get_current_device(), toolkit().current_context()
        major, minor = device.compute_capability
        lanes = 64 if (major, minor) in ((6, 0), (8, 0)) else LANES.get(major, 128)
        clock = 1e3 * device.CLOCK_RATE or USUAL_CLOCK
        bandwidth = 2e3 * device.MEMORY_CLOCK_RATE * device.GLOBAL_MEMORY_BUS_WIDTH / 8
        if device.INTEGRATED or not bandwidth:  # beside a processor, a GPU may tell its own clock as its memory's
            bandwidth = copied_bandwidth()
        name = device.name.decode() if isinstance(device.name, bytes) else device.name
        total = context.get_memory_info()[1]
    return Described(name, f"{major}.{minor}", lanes * device.MULTIPROCESSOR_COUNT, clock, bandwidth, total)


@cache
def copied_bandwidth() -> float:
    """Bytes a second, read and written, of copies within the GPU's memory, by CUDA events: the fastest of three.

    Errors as `told`.
    """
    nbytes = max(1, min(COPIED, free_bytes() // 8))
    queue, here, there = stream(), zeros(nbytes), empty((nbytes,), np.uint8)

    def copy():
        there.copy_to_device(here, stream=queue)

    timed(queue, copy)
    return 2 * nbytes / min(timed(queue, copy)[0] for _ in range(3))
