"""What Numba's simulator of CUDA lacks for our kernels: shared arrays that begin where they are told to."""

import sys
from importlib import import_module

import numpy as np


def take_alignments() -> None:
    """Let `cuda.shared.array` take an alignment, which a simulated one has no need of.

    Arrays of a block are one and the same where they are made on the same line.
    """
    simulated = import_module("numba.cuda.simulator.kernelapi").FakeCUDAShared

    def array(self, shape, dtype, alignment=None):
        caller = sys._getframe(1)
        line = caller.f_code.co_filename, caller.f_lineno
        return self._allocations.setdefault(line, np.empty(shape, dtype))

    simulated.array = array
