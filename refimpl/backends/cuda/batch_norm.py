"""Batch norm with the statistics of the batch, in two stages: parts over slices of the pixels, then a channel a thread.

A thread of the first stage makes mean and spread of a channel over a slice, which it goes over twice; the second adds
them by means: with m_s the mean of n_s values of slice s, and q_s = Σ (x − m_s)² there (Chan, Golub, LeVeque 1979),

    mean = Σ n_s·m_s / M,   M·var = Σ q_s + n_s·(m_s − mean)²

so that nothing of large size is subtracted from another. Both gradients of a norm come from one look at dy and x, which
goes through a rectifier's mask. Maps are (pixels, C).
"""

import math

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes
from ...kernels.cuda import at
from ...kernels.kernel import Kernel
from ..activation import RELU, RELU6

ROWS = 4  # pixels of a channel that one thread norms, beside whose index little is to be computed


def norm_slices(t, partial, x, length=1):
    """Mean and sum of squares about it of each channel over `length` rows of x, (pixels, C): partial, (slices, 2, C).

    For slices·C items.
    """
    s, c = divmod(t, x.shape[1])
    end = (s + 1) * length
    if end > x.shape[0]:
        end = x.shape[0]
    total = x.dtype.type(0)
    for row in range(s * length, end):
        total += x[at(row), at(c)]
    middle = total / x.dtype.type(end - s * length)
    spread = x.dtype.type(0)
    for row in range(s * length, end):
        centred = x[at(row), at(c)] - middle
        spread += centred * centred
    partial[s, 0, c] = middle
    partial[s, 1, c] = spread


def norm_statistics(t, mean, var, unbiased_var, inv_std, partial, rows=1, length=1, eps=1e-5):
    """Statistics of each channel, (C,), from partial, (slices, 2, C), of `rows` rows. For C items."""
    zero = mean.dtype.type(0)
    middle, spread, slices = zero, zero, partial.shape[0]
    last = rows - (slices - 1) * length
    for s in range(slices):
        middle += partial[s, 0, t] * mean.dtype.type(last if s == slices - 1 else length)
    middle /= mean.dtype.type(rows)
    for s in range(slices):
        apart = partial[s, 0, t] - middle
        spread += partial[s, 1, t] + apart * apart * mean.dtype.type(last if s == slices - 1 else length)
    mean[t] = middle
    var[t] = spread / mean.dtype.type(rows)
    unbiased_var[t] = spread / mean.dtype.type(rows - 1)
    inv_std[t] = mean.dtype.type(1) / math.sqrt(spread / mean.dtype.type(rows) + eps)


def normalise(t, y, x, gamma, beta, mean, inv_std, residual, act=0):
    """y ← act(γ·(x − mean)·inv_std + β + residual), maps (pixels, C), the rest (C,), ROWS pixels of a channel each."""
    group, c = divmod(t, y.shape[1])
    zero, middle, factor, shift = y.dtype.type(0), mean[at(c)], inv_std[at(c)], beta[at(c)]
    end = (group + 1) * ROWS
    if end > y.shape[0]:
        end = y.shape[0]
    for row in range(group * ROWS, end):
        value = (x[at(row), at(c)] - middle) * factor * gamma[at(c)] + shift
        if residual.shape[0]:
            value += residual[at(row), at(c)]
        if act >= RELU:
            value = zero if value <= zero else value
        if act == RELU6:
            value = y.dtype.type(6) if value >= y.dtype.type(6) else value
        y[at(row), at(c)] = value


def norm_gradient_slices(t, partial, dy, mask, x, mean, inv_std, pixels=1, length=1):
    """Σ dy·x̂ and Σ dy of each channel over `length` rows: partial, (slices, 2, C), dy where mask, (N, B), has a bit.

    mask: empty where there is none; pixels: rows of a sample. For slices·C items.
    """
    s, c = divmod(t, x.shape[1])
    end = (s + 1) * length
    if end > x.shape[0]:
        end = x.shape[0]
    middle, zero = mean[c], partial.dtype.type(0)
    of_gamma, of_beta = zero, zero
    for row in range(s * length, end):
        value = dy[at(row), at(c)]
        if mask.shape[0]:
            n = row // pixels
            e = (row - n * pixels) * x.shape[1] + c
            value = value if (mask[at(n), at(e >> 3)] >> (e & 7)) & 1 else zero
        of_beta += value
        of_gamma += value * (x[at(row), at(c)] - middle)
    partial[s, 0, c] = of_gamma * inv_std[c]
    partial[s, 1, c] = of_beta


def norm_gradients(t, dgamma, dbeta, partial):
    """Gradients of gamma and beta, (C,), from partial, (slices, 2, C). For C items."""
    of_gamma, of_beta = partial[0, 0, t], partial[0, 1, t]
    for s in range(1, partial.shape[0]):
        of_gamma += partial[s, 0, t]
        of_beta += partial[s, 1, t]
    dgamma[t] = of_gamma
    dbeta[t] = of_beta


def norm_grad_x(t, dx, dy, mask, x, gamma, mean, inv_std, dgamma, dbeta, pixels=1):
    """dx ← γ·inv_std·(dy − (dβ + x̂·dγ) / M), maps (pixels, C), the rest (C,), dy where mask, (N, B), has a bit.

    ROWS pixels of a channel each.
    """
    group, c = divmod(t, dx.shape[1])
    middle, factor, zero = mean[at(c)], inv_std[at(c)], dx.dtype.type(0)
    of_gamma, of_beta, many = dgamma[at(c)], dbeta[at(c)], dx.dtype.type(dx.shape[0])
    end = (group + 1) * ROWS
    if end > dx.shape[0]:
        end = dx.shape[0]
    n = group * ROWS // pixels
    for row in range(group * ROWS, end):
        value = dy[at(row), at(c)]
        if mask.shape[0]:
            while row >= (n + 1) * pixels:
                n += 1
            e = (row - n * pixels) * dx.shape[1] + c
            value = value if (mask[at(n), at(e >> 3)] >> (e & 7)) & 1 else zero
        normal = (x[at(row), at(c)] - middle) * factor
        taken = (of_beta + normal * of_gamma) / many
        dx[at(row), at(c)] = gamma[at(c)] * factor * (value - taken)


def _statistics_executes(items, mean, var, unbiased_var, inv_std, partial, rows, length, eps) -> Ops:
    return (MAC + ADD + MAC + MUL + ADD) * (partial.size // 2) + ADD * mean.size


def _normalise_executes(items, y, x, gamma, beta, mean, inv_std, residual, act) -> Ops:
    return (ADD * 2 + MUL * 2) * y.size + (ADD * y.size if residual.shape[0] else NOTHING)


SLICES = executes(lambda items, partial, x, length: (ADD * 2 + MAC) * x.size)(Kernel(norm_slices).gpu)
STATISTICS = executes(_statistics_executes)(Kernel(norm_statistics).gpu)
NORMALISE = executes(_normalise_executes)(Kernel(normalise).gpu)
GRADIENT_SLICES = executes(
    lambda items, partial, dy, mask, x, mean, inv_std, pixels, length: (ADD * 2 + MAC) * x.size + MUL * partial.size
)(Kernel(norm_gradient_slices).gpu)
GRADIENTS = executes(lambda items, dgamma, dbeta, partial: ADD * partial.size)(Kernel(norm_gradients).gpu)
GRAD_X = executes(
    lambda items, dx, dy, mask, x, gamma, mean, inv_std, dgamma, dbeta, pixels: (ADD * 3 + MUL * 4) * dx.size
)(Kernel(norm_grad_x).gpu)
