"""Layer norm of rows and the gradient of its input, each in one launch. Letters as in `ops.layer_norm`."""

import math

from ...compiler.executed import ADD, MAC, MUL, Ops, executes
from ...kernels.cuda import at, jit
from ...kernels.cuda import late as cuda
from .rows import RowBlock, RowWise, lanes_added, over_lanes, placer, sum_of, threads_of


def forward(block: RowBlock, dtype):
    """y ← γ·x̂ + β, (N, C), with mean and inv_std, (N,), from x, (N, C), gamma and beta, (C,)."""
    threads, step, zero, one = block.threads, at(block.lanes), dtype(0), dtype(1)
    place, summed = placer(block), over_lanes(block, sum_of)

    @jit
    def kernel(y, mean, inv_std, x, gamma, beta, eps):
        parts = cuda.shared.array(threads, dtype)
        t, size = cuda.threadIdx.x, x.dtype.type(x.shape[1])
        row, lane, end = place(cuda.blockIdx.x, t, x.shape[0], x.shape[1])
        total, squares = zero, zero
        c = lane
        while c < end:
            total += x[row, c]
            c += step
        middle = summed(parts, total, t) / size
        c = lane
        while c < end:
            centred = x[row, c] - middle
            squares += centred * centred
            c += step
        squares = summed(parts, squares, t)
        if end:
            scale = one / math.sqrt(squares / size + eps)
            if not lane:
                mean[row] = middle
                inv_std[row] = scale
            c = lane
            while c < end:
                y[row, c] = (x[row, c] - middle) * scale * gamma[c] + beta[c]
                c += step

    return kernel


def grad_x(block: RowBlock, dtype):
    """dx ← inv_std·(γ·dy − (Σ_c γ·dy + x̂·Σ_c γ·dy·x̂) / C), (N, C).

    From dy and x, (N, C), gamma, (C,), mean and inv_std, (N,).
    """
    threads, step, zero, one = block.threads, at(block.lanes), dtype(0), dtype(1)
    place, summed = placer(block), over_lanes(block, sum_of)

    @jit
    def kernel(dx, dy, x, gamma, mean, inv_std):
        parts = cuda.shared.array(threads, dtype)
        t, part = cuda.threadIdx.x, one / x.dtype.type(x.shape[1])
        row, lane, end = place(cuda.blockIdx.x, t, x.shape[0], x.shape[1])
        middle, scale, total, along = zero, zero, zero, zero
        if end:
            middle, scale = mean[row], inv_std[row]
        c = lane
        while c < end:
            weighed = gamma[c] * dy[row, c]
            total += weighed
            along += weighed * (x[row, c] - middle)
            c += step
        total, along = summed(parts, total, t), summed(parts, along, t)
        if end:
            level, slope = total * part, along * scale * scale * part
            c = lane
            while c < end:
                dx[row, c] = scale * (gamma[c] * dy[row, c] - level - (x[row, c] - middle) * slope)
                c += step

    return kernel


def _forward_executes(y, mean, inv_std, x, gamma, beta, eps) -> Ops:
    """Two sums over each row, eps in each thread, and what is made of the row."""
    return (ADD * 4 + MUL * 2 + MAC) * x.size + ADD * threads_of(*x.shape) + lanes_added(*x.shape) * 2


def _grad_x_executes(dx, dy, x, gamma, mean, inv_std) -> Ops:
    """Two sums over each row, what each thread makes of them, and the gradient."""
    return (MUL * 5 + ADD * 6) * dx.size + MUL * (4 * threads_of(*dx.shape)) + lanes_added(*dx.shape) * 2


FORWARD = executes(_forward_executes)(RowWise(forward))
GRAD_X = executes(_grad_x_executes)(RowWise(grad_x))
