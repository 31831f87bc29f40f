"""The parts of NVIDIA's toolkit that a package for CUDA loads: which are there, and what brings those that are not."""

from importlib import import_module
from importlib.metadata import version

PARTS = {
    "NVVM": "nvvm",
    "libdevice": "device",
    "nvJitLink": "nvJitLink",
    "NVRTC": "nvrtc",
}  # as cuda.pathfinder has them
EXTRAS = "pip install 'gradledger[cuda12]', or gradledger[cuda13] for drivers of CUDA 13"


def bindings_major() -> int:
    """The CUDA that the package compiles for: 12 or 13."""
    return int(version("cuda-bindings").split(".")[0])


def missing() -> list[str]:
    """Which of `PARTS` are not found, where a package is installed."""
    finder = import_module("cuda.pathfinder")

    def found(part: str) -> bool:
        try:
            finder.find_bitcode_lib(part) if part == "device" else finder.load_nvidia_dynamic_lib(part)
        except Exception:  # of several classes, by why it is not there
            return False
        return True

    return [name for name, part in PARTS.items() if not found(part)]


def remedy(package: str) -> str:
    """The command that installs what is missing of the toolkit, for one of the packages."""
    major = bindings_major()
    extra = f"gradledger[cuda{major}]" if package == "numba_cuda" else f"numba-cuda-mlir[cu{major}]"
    return f"pip install '{extra}'"


def lacking(package: str) -> str | None:
    """What is missing of the toolkit and what to do, in one sentence; None where nothing is."""
    found = missing()
    if not found:
        return None
    of = "which kernels are compiled with, is" if len(found) == 1 else "which kernels are compiled with, are"
    return f"{' and '.join(found)} of NVIDIA's toolkit, {of} not found: {remedy(package)}, or take another backend"
