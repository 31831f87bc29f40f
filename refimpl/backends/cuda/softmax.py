"""Softmax of rows and its gradient, each in one launch. Letters as in `ops.softmax`.

What an exponential function does inside counts nothing, as in a reference kernel.
"""

import math

import numpy as np

from ...compiler.executed import ADD, MAC, MUL, executes
from ...kernels.cuda import at, jit
from ...kernels.cuda import late as cuda
from .rows import RowBlock, RowWise, lanes_added, larger_of, over_lanes, placer, sum_of


def forward(block: RowBlock, dtype):
    """y ← exp(x − max_c x) / Σ_c exp(x − max_c x), (N, C), from x, (N, C). A NaN in a row makes NaN of all of it."""
    threads, step, zero, lowest = block.threads, at(block.lanes), dtype(0), dtype(-np.inf)
    place, summed, largest = placer(block), over_lanes(block, sum_of), over_lanes(block, larger_of)

    @jit
    def kernel(y, x):
        parts = cuda.shared.array(threads, dtype)
        t = cuda.threadIdx.x
        row, lane, end = place(cuda.blockIdx.x, t, x.shape[0], x.shape[1])
        top, total = lowest, zero
        c = lane
        while c < end:
            value = x[row, c]
            top = value if value > top else top
            c += step
        top = largest(parts, top, t)
        c = lane
        while c < end:
            value = math.exp(x[row, c] - top)
            y[row, c] = value
            total += value
            c += step
        total = summed(parts, total, t)
        c = lane
        while c < end:
            y[row, c] /= total
            c += step

    return kernel


def grad_x(block: RowBlock, dtype):
    """dx ← y·(dy − Σ_c dy·y), (N, C), from dy and y, (N, C)."""
    threads, step, zero = block.threads, at(block.lanes), dtype(0)
    place, summed = placer(block), over_lanes(block, sum_of)

    @jit
    def kernel(dx, dy, y):
        parts = cuda.shared.array(threads, dtype)
        t = cuda.threadIdx.x
        row, lane, end = place(cuda.blockIdx.x, t, y.shape[0], y.shape[1])
        along = zero
        c = lane
        while c < end:
            along += dy[row, c] * y[row, c]
            c += step
        along = summed(parts, along, t)
        c = lane
        while c < end:
            dx[row, c] = y[row, c] * (dy[row, c] - along)
            c += step

    return kernel


FORWARD = executes(lambda y, x: ADD * (2 * x.size) + lanes_added(*x.shape))(RowWise(forward))
GRAD_X = executes(lambda dx, dy, y: (MAC + ADD + MUL) * dx.size + lanes_added(*dx.shape))(RowWise(grad_x))
