"""The CUDA form of a reference kernel: the same body, called from a grid-stride loop (numba-cuda, extra `cuda`)."""

from collections.abc import Callable

from numba import cuda

from .kernel import build


def grid_loop(body: Callable) -> Callable:
    """CUDA kernel `(items, *args)` that runs `body(t, *args)` for every t < items."""
    item = cuda.jit(device=True)(body)
    header = "for t in range(cuda.grid(1), items, cuda.gridsize(1)):"
    return cuda.jit(build(body, f"{body.__name__}_grid", header, item=item, cuda=cuda))


def to_device(array):
    """Copy a NumPy array to the GPU (or to Numba's simulator)."""
    return cuda.to_device(array)
