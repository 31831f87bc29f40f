"""What the packages that compile for CUDA raise, told apart: no memory left, no code made, or the GPU stopped.

Each package has errors of its own for the same things, and loads libraries whose wrappers have others. All of them are
recognised by where their classes come from.
"""

import re

HOMES = {"numba", "numba_cuda", "numba_cuda_mlir", "cuda"}  # packages whose errors are those of CUDA, while it works
# How numba-cuda-mlir begins what its launches raise, which are plain RuntimeErrors
LAUNCHING = "Failed to "
MOST_WORDS = 400  # letters of an error: compilers tell whole kernels
DRIVERS = re.compile("CUDA_ERROR|CUDA driver")  # in what a driver's error says
# Codes of a driver that can take no code of this compiler
REFUSED = re.compile("INVALID_IMAGE|NO_BINARY_FOR_GPU|INVALID_PTX|UNSUPPORTED_PTX_VERSION|JIT_COMPILER")


class CudaError(RuntimeError):
    """No GPU can be used, or the one at work failed; the message says why and what to do."""


def words(e: BaseException) -> str:
    """What an error says, on one line, in so many letters as one reads."""
    return " ".join(str(e).split())[:MOST_WORDS] or type(e).__name__


def of_cuda(e: BaseException) -> bool:
    """Did a package raise it, or a library that it loads?"""
    homes = {home(base.__module__) for base in type(e).__mro__}
    lacks = isinstance(e, (RuntimeError, OSError, ImportError)) and home(raised_in(e)) in HOMES
    return bool(homes & HOMES) or lacks or type(e) is RuntimeError and str(e).startswith(LAUNCHING)


def home(module: str) -> str:
    """The package of a module."""
    return module.partition(".")[0]


def raised_in(e: BaseException) -> str:
    """The module whose code raised an error; empty where none did."""
    trace = e.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "") if trace else ""


def out_of_memory(e: BaseException) -> bool:
    """Had the GPU, or the host for what the GPU copies from, no room?"""
    return "OUT_OF_MEMORY" in str(e) or "out of memory" in str(e).lower()


def of_compiler(e: BaseException) -> bool:
    """Was no code made for the GPU: does a library lack, or refuse the kernel? To be asked of errors `of_cuda`."""
    said = str(e)
    return not (said.startswith(LAUNCHING) or DRIVERS.search(said)) or bool(REFUSED.search(said))
