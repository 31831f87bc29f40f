"""One small kernel taken through all that training asks of a GPU: is it fit, and does its driver capture graphs?"""

import math
import time
from typing import NamedTuple

import numpy as np

from ...kernels import cuda
from ...kernels.cuda import CudaError
from ...kernels.cuda import late as toolkit
from .gpu import Gpu
from .replay import CAPTURES, Replayed

COUNT = 256  # numbers, one a thread
RUNS = 3  # of the section: it is loaded, captured, and replayed


class GpuTrial(NamedTuple):
    """seconds: until a new kernel had been compiled, linked, loaded and run; launch_seconds: of a later run, by events.

    no_graphs: why sections are not replayed as CUDA graphs; empty where they are.
    """

    seconds: float
    launch_seconds: float
    no_graphs: str


def decay(y):
    """y ← exp(−y) of each number: what no GPU does without NVIDIA's library of functions."""
    t = toolkit.grid(1)
    if t < y.shape[0]:
        y[t] = math.exp(-y[t])


def run_trial() -> GpuTrial:
    """Compile the kernel, whatever the disk holds, and run it on numbers that go and come through pinned memory.

    MemoryError or CudaError where something fails, CudaError too where the numbers are wrong.
    """
    gpu, kernel = Gpu(), cuda.toolkit().jit(cuda.with_toolkit(decay))
    x = np.linspace(0, 2, COUNT, dtype=np.float32)
    there = gpu.view(gpu.allocate(x.nbytes), 0, x.nbytes, x.dtype)
    gpu.write(there, x)

    def launch(y, stream):
        kernel[1, COUNT, stream](y)

    section = Replayed([(launch, [there], {"stream": gpu.stream})], gpu.stream)
    run = [(section, [])]
    started = time.perf_counter()
    gpu.launch(run)
    gpu.synchronise()
    seconds = time.perf_counter() - started
    gpu.launch(run)
    launch_seconds, _ = cuda.timed(gpu.stream, lambda: gpu.launch(run))
    found = gpu.waiting(x.shape, x.dtype)
    gpu.copy(found, there)
    gpu.synchronise()
    wanted = x.astype(float)
    for _ in range(RUNS):
        wanted = np.exp(-wanted)
    error = np.abs(found - wanted).max()
    if not error < 1e-5:
        raise CudaError(f"the GPU computes wrongly: exp is {error:.1e} off")
    why = "" if section.graph is not None else section.why or f"{CAPTURES} is 0"
    return GpuTrial(seconds, launch_seconds, why)
