"""Softmax cross-entropy by rows: its losses, their tangents and its gradient. Letters as in the operator.

What exponential functions and logarithms do inside counts nothing, as in a reference kernel.
"""

import math
from functools import cache

import numpy as np

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes
from ...kernels.cuda import at, device, jit
from ...kernels.cuda import late as cuda
from .rows import RowBlock, RowWise, lanes_added, larger_of, over_lanes, placer, sum_of, threads_of


@cache
def weigher(block: RowBlock, dtype):
    """Device function: the loss of a row, as `sample_losses` has it, from x, (N, K), and its log-sum-exp `of`.

    It takes losses, (N,), what is given of the losses, and of the thread what `placer` tells. All threads of a block
    call it.
    """
    step, zero, one, summed = at(block.lanes), dtype(0), dtype(1), over_lanes(block, sum_of)

    def weigh(losses, x, labels, of, class_weights, label_smoothing, ignored, parts, t, row, lane, end):
        uniform = zero
        if label_smoothing != 0:
            c = lane
            while c < end:
                value = of - x[row, c]
                uniform += value * class_weights[c] if class_weights.shape[0] else value
                c += step
            uniform = summed(parts, uniform, t)
        if end and not lane:
            label, loss = labels[row], zero
            if label != ignored:
                loss = of - x[row, at(label)]
                if class_weights.shape[0]:
                    loss *= class_weights[at(label)]
                if label_smoothing != 0:
                    loss = loss * (one - label_smoothing) + uniform * (label_smoothing / x.dtype.type(x.shape[1]))
            losses[row] = loss

    return device(weigh)


def sample_losses(block: RowBlock, dtype):
    """The losses and lse, (N,), of rows of x, (N, K); the rest as for `sample_losses` of the operator."""
    threads, step, zero, lowest = block.threads, at(block.lanes), dtype(0), dtype(-np.inf)
    place, weigh = placer(block), weigher(block, dtype)
    summed, largest = over_lanes(block, sum_of), over_lanes(block, larger_of)

    @jit
    def kernel(losses, x, labels, lse, class_weights, label_smoothing, ignored):
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
            total += math.exp(x[row, c] - top)
            c += step
        total = summed(parts, total, t)
        of = top
        if end:  # past the last row it would be the logarithm of 0
            of += math.log(total)
            if not lane:
                lse[row] = of
        weigh(losses, x, labels, of, class_weights, label_smoothing, ignored, parts, t, row, lane, end)

    return kernel


def tangent_losses(block: RowBlock, dtype):
    """The tangents of losses and lse, (N,), along tx, (N, K), from x, (N, K), and lse, (N,).

    The loss is linear in x and lse together: so is its tangent in theirs.
    """
    threads, step, zero = block.threads, at(block.lanes), dtype(0)
    place, weigh, summed = placer(block), weigher(block, dtype), over_lanes(block, sum_of)

    @jit
    def kernel(tlosses, tx, labels, tlse, class_weights, label_smoothing, ignored, x, lse):
        parts = cuda.shared.array(threads, dtype)
        t = cuda.threadIdx.x
        row, lane, end = place(cuda.blockIdx.x, t, x.shape[0], x.shape[1])
        total = zero
        if end:
            of = lse[row]
            c = lane
            while c < end:
                total += math.exp(x[row, c] - of) * tx[row, c]
                c += step
        total = summed(parts, total, t)
        if end and not lane:
            tlse[row] = total
        weigh(tlosses, tx, labels, total, class_weights, label_smoothing, ignored, parts, t, row, lane, end)

    return kernel


def mean_loss(block: RowBlock, dtype):
    """The mean loss and total_weight, (1,), of losses and labels, (N,), and class_weights, (K,): all are one row."""
    threads, step, zero, one = block.threads, at(block.lanes), dtype(0), dtype(1)
    place, summed = placer(block), over_lanes(block, sum_of)

    @jit
    def kernel(loss, total_weight, losses, labels, class_weights, ignored):
        parts = cuda.shared.array(threads, dtype)
        t = cuda.threadIdx.x
        _, lane, end = place(cuda.blockIdx.x, t, 1, losses.shape[0])
        total, weight = zero, zero
        n = lane
        while n < end:
            label = labels[n]
            if label != ignored:
                weight += class_weights[at(label)] if class_weights.shape[0] else one
            total += losses[n]
            n += step
        total, weight = summed(parts, total, t), summed(parts, weight, t)
        if t == 0:
            if ignored != -1 and weight == 0:
                weight = one
            total_weight[0] = weight
            loss[0] = total / weight

    return kernel


def grad_x(block: RowBlock, dtype):
    """Gradient of x, (N, K), from x, labels and lse, (N,), total_weight, (1,), and class_weights, (K,)."""
    threads, step, zero, one = block.threads, at(block.lanes), dtype(0), dtype(1)
    place, summed = placer(block), over_lanes(block, sum_of)

    @jit
    def kernel(dx, x, labels, lse, total_weight, class_weights, label_smoothing, ignored):
        parts = cuda.shared.array(threads, dtype)
        t = cuda.threadIdx.x
        row, lane, end = place(cuda.blockIdx.x, t, x.shape[0], x.shape[1])
        weights, spread, size = zero, zero, x.dtype.type(x.shape[1])
        if label_smoothing != 0:
            spread = label_smoothing / size / total_weight[0]
            weights = size
            if class_weights.shape[0]:
                weights = zero
                c = lane
                while c < end:
                    weights += class_weights[c]
                    c += step
                weights = summed(parts, weights, t)
        if end:
            label, of, hit = labels[row], lse[row], (one - label_smoothing) / total_weight[0]
            counts, place_of_label = label != ignored, at(label)
            if counts and class_weights.shape[0] > 0:
                hit *= class_weights[place_of_label]
            both = hit + spread * weights
            c = lane
            while c < end:
                value = zero
                if counts:
                    value = math.exp(x[row, c] - of) * both
                    if label_smoothing != 0:
                        value -= spread * class_weights[c] if class_weights.shape[0] else spread
                    value -= hit if c == place_of_label else zero
                dx[row, c] = value
                c += step

    return kernel


def _weighed(x, class_weights, label_smoothing) -> Ops:
    """What the losses of rows take beside their logarithms of sums."""
    weighted, rows = bool(class_weights.shape[0]), x.shape[0]
    found = (ADD + (MUL if weighted else NOTHING)) * rows
    if label_smoothing:
        found += (ADD + (MAC if weighted else ADD)) * x.size + lanes_added(*x.shape) + (ADD + MUL + MAC) * rows
    return found


def _losses_executes(losses, x, labels, lse, class_weights, label_smoothing, ignored) -> Ops:
    own = ADD * (2 * x.size + threads_of(*x.shape)) + lanes_added(*x.shape)
    return own + _weighed(x, class_weights, label_smoothing)


def _tangents_executes(tlosses, tx, labels, tlse, class_weights, label_smoothing, ignored, x, lse) -> Ops:
    return (ADD + MAC) * x.size + lanes_added(*x.shape) + _weighed(x, class_weights, label_smoothing)


def _mean_executes(loss, total_weight, losses, labels, class_weights, ignored) -> Ops:
    return ADD * (2 * losses.size) + lanes_added(1, losses.size) * 2


def _grad_x_executes(dx, x, labels, lse, total_weight, class_weights, label_smoothing, ignored) -> Ops:
    weighted, of_rows = bool(class_weights.shape[0]), threads_of(*x.shape)
    found = (ADD * 2 + MUL) * x.size + (ADD + MAC + (MUL if weighted else NOTHING)) * of_rows
    if label_smoothing:
        found += (MAC if weighted else ADD) * x.size
        found += ADD * x.size + lanes_added(*x.shape) if weighted else NOTHING
    return found


def _of_x(made, x, *others) -> tuple[int, int]:
    return x.shape


def _all_losses(loss, total_weight, losses, *others) -> tuple[int, int]:
    return 1, losses.shape[0]


SAMPLE_LOSSES = executes(_losses_executes)(RowWise(sample_losses, _of_x))
TANGENT_LOSSES = executes(_tangents_executes)(RowWise(tangent_losses, _of_x))
MEAN_LOSS = executes(_mean_executes)(RowWise(mean_loss, _all_losses))
GRAD_X = executes(_grad_x_executes)(RowWise(grad_x))
