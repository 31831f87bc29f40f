"""A driver of NVIDIA's that is none: `numba-cuda` and `cuda.core` run on it as they are, their kernels as PTX.

`stand_in()` loads `driver.c` under the name of the driver, so that this process finds one GPU: arrays, streams, graphs,
launches and errors go their real way up to the driver's interface, and each kernel is run by `machine`, every access to
memory checked. It needs a C compiler and a package that compiles for CUDA. Its times say nothing of a GPU's.
"""

import ctypes
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.kernels import cuda
from refimpl.kernels.cuda import uncollected

from .assembly import FIRST_BYTE, Assembled, PtxError, read
from .machine import NUMBERS, Machine

NOT_READ, ILLEGAL_ADDRESS = 218, 700  # errors of the driver: PTX that is invalid, memory that was not to be touched
MOST_PIECES = 1 << 14  # of memory in use
MOST_SHARED, MOST_ARGUMENTS = 48 << 10, 4096  # bytes of a block and of a launch; drivers before CUDA 12.1 take no more
_LOAD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, *[ctypes.c_uint] * 6, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int
)
_REPLAY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)


class ExecutedLaunch(NamedTuple):
    """What a launch executed: the kernel's name, and instructions by operation over all threads."""

    kernel: str
    counts: Counter[str]


class DriverLaunch(NamedTuple):
    """A kernel with blocks and threads along x, y and z, and the 64 bits of each argument."""

    kernel: Assembled
    blocks: tuple[int, int, int]
    threads: tuple[int, int, int]
    arguments: list[int]


class Linked:
    """The PTX of machine code that was linked: what the stand-in runs where a GPU would run the code itself.

    folder: where it is kept for the processes that find the machine code on the disk; None for this process alone.
    """

    def __init__(self, folder: Path | None):
        self.folder, self.texts = folder, dict[str, str]()

    def note(self, code: bytes, ptx: str) -> None:
        """Keep the PTX that became some machine code."""
        digest = sha256(code).hexdigest()
        self.texts[digest] = ptx
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / digest).write_text(ptx, encoding="utf-8")

    def ptx(self, image: bytes) -> str:
        """That of an image, which may be PTX itself. KeyError or OSError for machine code that nobody has noted."""
        if not image.startswith(b"\x7fELF"):
            return image.decode()
        digest = sha256(image).hexdigest()
        if digest not in self.texts and self.folder is not None:
            self.texts[digest] = (self.folder / digest).read_text(encoding="utf-8")
        return self.texts[digest]


class Driver:
    """What stands behind the interface in C. launched: what ran so far; problem: why the last call that failed did.

    left: launches after which the GPU is gone, each call failing with ILLEGAL_ADDRESS from then on; None for never.
    """

    def __init__(self, library: Path, capability: str, nbytes: int, version: int, linked: Linked):
        self.linked = linked
        self.machine = Machine(nbytes)
        self.library = ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        self.texts: dict[bytes, Assembled] = {}
        self.kernels: dict[int, Assembled] = {}
        self.graphs: dict[int, list[DriverLaunch]] = {}
        self.launched: list[ExecutedLaunch] = []
        self.problem: Exception | None = None
        self.left: int | None = None
        self._calls = (
            _LOAD(self._load),
            _LAUNCH(self._launch),
            _REPLAY(self._replay),
        )  # the library keeps only addresses
        base, size = ctypes.c_uint64(self.machine.base), ctypes.c_size_t(nbytes)
        self.library.stand_in(*self._calls, base, size, int(capability.replace(".", "")), version)

    def _load(self, at: int, n: int, name: bytes, handle: int) -> int:
        image = ctypes.string_at(at, n)
        try:
            if image not in self.texts:
                self.texts[image] = fitting(read(self.linked.ptx(image), NUMBERS))
            self.kernels[handle] = self.texts[image]
            return 0
        except Exception as e:
            return self._failed(e, NOT_READ)

    def tells(self, attribute: int, value: int) -> None:
        """Let the device have this value of an attribute, by its number (CUdevice_attribute), before it is asked."""
        self.library.stand_in_tells(attribute, value)

    def has(self, nbytes: int) -> None:
        """Let the device have so much memory from now on, at most as much as it began with."""
        self.library.stand_in_has(ctypes.c_size_t(nbytes))

    def _launch(self, handle: int, x, y, z, a, b, c, arguments, graph: int) -> int:
        """Now, or into the graph that is being built."""
        kernel = self.kernels[handle]
        pieces = (ctypes.string_at(arguments[i], size) for i, (_, size) in enumerate(kernel.parameters))
        given = [int.from_bytes(piece, "little", signed=True) for piece in pieces]
        launch = DriverLaunch(kernel, (x, y, z), (a, b, c), given)
        if graph:
            self.graphs.setdefault(graph, []).append(launch)
            return 0
        return self._run(launch)

    def _replay(self, graph: int) -> int:
        with uncollected():  # else memory is given back amid it, which would do what is queued behind it first
            return next((error for launch in self.graphs.get(graph, ()) if (error := self._run(launch))), 0)

    def _run(self, launch: DriverLaunch) -> int:
        if self.left == len(self.launched):
            self.library.stand_in_fails(ILLEGAL_ADDRESS)
            return ILLEGAL_ADDRESS
        try:
            counts = self.machine.run(*launch, self._ranges(launch.arguments))
        except Exception as e:
            return self._failed(e, ILLEGAL_ADDRESS)
        self.launched.append(ExecutedLaunch(launch.kernel.name, counts))
        return 0

    def _failed(self, e: Exception, error: int) -> int:
        self.problem = e
        print(f"stand-in driver: {e}", file=sys.stderr)
        return error

    def _ranges(self, arguments: list[int]) -> list[tuple[int, int]]:
        """The memory that a launch may touch: its arrays, as `numba-cuda` hands them on, else all that is in use.

        An array is nothing twice, its size, the bytes of a number and where it lies, then shape and strides.
        """
        base, end = self.machine.base, self.machine.base + self.machine.memory.size
        found = []
        for i in range(len(arguments) - 4 if cuda.package() == "numba_cuda" else 0):
            meminfo, parent, size, each, at = arguments[i : i + 5]
            if meminfo == parent == 0 and each in (1, 2, 4, 8) and base <= at and at + size * each <= end:
                found.append((at, at + size * each))
        if found:
            return found
        pieces = np.empty((MOST_PIECES, 2), np.int64)
        return pieces[: self.library.stand_in_ranges(pieces.ctypes.data_as(ctypes.c_void_p), MOST_PIECES)].tolist()


def fitting(kernel: Assembled) -> Assembled:
    """The kernel; PtxError where it takes more shared memory or arguments than every driver allows."""
    arguments = sum(size for _, size in kernel.parameters)
    shared = kernel.shared - FIRST_BYTE
    for found, most, of in ((shared, MOST_SHARED, "shared memory"), (arguments, MOST_ARGUMENTS, "arguments")):
        if found > most:
            raise PtxError(f"{kernel.name} has {found:,} bytes of {of}, and a GPU gives {most:,}")
    return kernel


def compiler() -> str | None:
    """The path of a C compiler."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def stand_in(capability: str = "8.7", nbytes: int = 1 << 26, version: int = 12090, keeps: bool = False) -> Driver:
    """Let this process find a GPU, to its end. It must not have asked for one before.

    capability: its compute capability; nbytes: its memory; version: of the driver, 12090 for CUDA 12.9. keeps: are
    compiled kernels kept on disk, and taken from there? Then a folder of their own is to be the cache
    (GRADLEDGER_CACHE): their PTX is kept there too. RuntimeError without a C compiler.
    """
    found = compiler()
    if found is None:
        raise RuntimeError("there is no C compiler (cc), which makes the stand-in of the driver")
    source, folder = Path(__file__).with_suffix(".c"), Path(tempfile.mkdtemp())
    library = folder / cuda.DRIVER
    options = ["-shared", "-fPIC", "-O1", f"-Wl,-soname,{cuda.DRIVER}"]
    subprocess.run([found, *options, "-o", str(library), str(source), "-ldl"], check=True)
    cuda.CACHE_DIR = cuda.CACHE_DIR if keeps else None
    linked = Linked(cuda.CACHE_DIR and cuda.CACHE_DIR / "ptx")
    driver = Driver(library, capability, nbytes, version, linked)
    shutil.rmtree(folder)
    _note_ptx(linked)
    return driver


def _note_ptx(linked: Linked) -> None:
    """Let the package link as it does for a GPU, and note of which PTX the machine code was made."""
    cuda.toolkit()
    if cuda.package() == "numba_cuda":
        library = import_module("numba.cuda.codegen").CUDACodeLibrary
        link = library.get_cubin

        def image(self, cc=None):
            made = link(self, cc=cc)
            linked.note(made.code, "\n".join(self.get_asm_strs(cc=cc)))
            return made

        library.get_cubin = image
    else:
        made = import_module("numba_cuda_mlir.mlir_optimization")
        optimize = made.optimize

        def optimized(result):
            optimize(result)
            linked.note(result.metadata["cubin"], made.get_ptx(result))

        made.optimize = optimized
