"""Layer norm of rows, each while it lies in the fast cache. Letters as in `ops.layer_norm`."""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes
from ...kernels.kernel import fast
from .moves import rows_of

SLICES = 16  # of rows, whose sums are added up in the end: a few threads share them evenly


@executes(lambda y, mean, inv_std, x, gamma, beta, eps: (ADD * 4 + MUL * 2 + MAC) * x.size + ADD * x.shape[0])
@fast
def forward(y, mean, inv_std, x, gamma, beta, eps):
    """Output y = γ·x̂ + β, (N, C), mean and inv_std, (N,), from x, (N, C), gamma and beta, (C,)."""
    count, many = x.shape[1], rows_of(x.shape[1])
    into, of = y.reshape(-1), x.reshape(-1)
    one, size = y.dtype.type(1), y.dtype.type(count)
    for t in prange((x.shape[0] + many - 1) // many):
        first = np.int64(t) * many
        for n in range(first, min(first + many, x.shape[0])):
            row, normal = of[n * count : (n + 1) * count], into[n * count : (n + 1) * count]
            total, squares = y.dtype.type(0), y.dtype.type(0)
            for c in range(count):
                total += row[c]
            middle = total / size
            for c in range(count):
                centred = row[c] - middle
                squares += centred * centred
            scale = one / np.sqrt(squares / size + eps)
            mean[n], inv_std[n] = middle, scale
            for c in range(count):
                normal[c] = (row[c] - middle) * scale * gamma[c] + beta[c]


def grad_x_executes(dx, dy, x, gamma, mean, inv_std) -> Ops:
    """Two sums over each row and the gradient from them."""
    return (MUL * 5 + ADD * 6) * dx.size + MUL * (4 * dx.shape[0])


@executes(grad_x_executes)
@fast
def grad_x(dx, dy, x, gamma, mean, inv_std):
    """Gradient of x, (N, C), from dy and x, (N, C), gamma, (C,), mean and inv_std, (N,)."""
    count, many = x.shape[1], rows_of(x.shape[1])
    into, error, of = dx.reshape(-1), dy.reshape(-1), x.reshape(-1)
    part = dx.dtype.type(1) / dx.dtype.type(count)
    for t in prange((x.shape[0] + many - 1) // many):
        first = np.int64(t) * many
        for n in range(first, min(first + many, x.shape[0])):
            run = slice(n * count, (n + 1) * count)
            back, given, row = into[run], error[run], of[run]
            middle, scale = mean[n], inv_std[n]
            total, along = dx.dtype.type(0), dx.dtype.type(0)
            for c in range(count):
                weighed = gamma[c] * given[c]
                total += weighed
                along += weighed * (row[c] - middle)
            level, slope = total * part, along * scale * scale * part
            for c in range(count):
                back[c] = scale * (gamma[c] * given[c] - level - (row[c] - middle) * slope)


def slices(rows: int) -> int:
    """Slices of so many rows."""
    return min(SLICES, max(1, rows))


def grad_affine_executes(dgamma, dbeta, partials, dy, x, mean, inv_std) -> Ops:
    """What each row adds to its slice, and the slices added up."""
    each = (MAC + MUL + ADD if dgamma.size else NOTHING) + (ADD if dbeta.size else NOTHING)
    return each * dy.size + ADD * (partials.shape[0] * (dgamma.size + dbeta.size))


@executes(grad_affine_executes)
@fast
def grad_affine(dgamma, dbeta, partials, dy, x, mean, inv_std):
    """Gradients of gamma, Σ_n dy·x̂, and of beta, Σ_n dy, (C,), or (0,) for one that is not wanted.

    dy and x, (N, C), mean and inv_std, (N,); partials, (slices, 2, C): scratch. Without dgamma x, mean and inv_std may
    be empty.
    """
    count, many = dy.shape[1], partials.shape[0]
    rows = (dy.shape[0] + many - 1) // many
    error, of, parts = dy.reshape(-1), x.reshape(-1), partials.reshape(-1)
    scaled, shifted, zero = dgamma.size > 0, dbeta.size > 0, dy.dtype.type(0)
    for t in prange(many):
        item = np.int64(t)
        steep, flat = parts[2 * item * count :][:count], parts[(2 * item + 1) * count :][:count]
        steep[:] = zero
        flat[:] = zero
        for n in range(item * rows, min((item + 1) * rows, dy.shape[0])):
            given = error[n * count : (n + 1) * count]
            if scaled:
                row, middle, scale = of[n * count : (n + 1) * count], mean[n], inv_std[n]
                for c in range(count):
                    steep[c] += given[c] * ((row[c] - middle) * scale)
            if shifted:
                for c in range(count):
                    flat[c] += given[c]
    for into, place in ((dgamma, 0), (dbeta, 1)):
        for c in range(into.size):
            total = zero
            for item in range(many):
                total += parts[(2 * item + place) * count + c]
            into[c] = total
