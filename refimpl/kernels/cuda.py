"""The CUDA form of a reference kernel: the same body, called from a grid-stride loop.

Uses the package `numba-cuda` (extra `cuda`) where it is installed, else the older CUDA target inside Numba.
"""

from collections.abc import Callable

from numba import cuda

from .loops import build


def grid_function(body: Callable) -> Callable:
    """The loop as a plain function `(items, *args)`, for `cuda.jit` and for compiling to PTX."""
    item = cuda.jit(device=True)(body)
    header = "for t in range(cuda.grid(1), items, cuda.gridsize(1)):"
    return build(body, f"{body.__name__}_grid", header, item=item, cuda=cuda)


def grid_loop(body: Callable) -> Callable:
    """CUDA kernel `(items, *args)` that runs `body(t, *args)` for every t < items."""
    return cuda.jit(grid_function(body))


def to_device(array):
    """Copy a NumPy array to the GPU (or to Numba's simulator)."""
    return cuda.to_device(array)
