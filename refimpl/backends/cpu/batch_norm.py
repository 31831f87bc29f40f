"""Batch norm on the CPU: the small tables through which fast kernels read maps, and whole maps where nothing fuses.

With M = N·H·W values per channel of a raw output y, S1 = Σy and S2 = Σy² (arXiv 1502.03167, algorithm 1):

    mean = S1 / M,  var = S2 / M − mean²,  z = a·y + b  with  a = gamma / √(var + eps),  b = beta − a·mean

and with dz = ∂L/∂z, D1 = Σ dz, D2 = Σ dz·y, rstd = 1 / √(var + eps):

    dbeta = D1,  dgamma = rstd·(D2 − mean·D1),  dy = A·dz + B·y + C
    A = a,  B = −a·rstd·dgamma / M,  C = −a·D1 / M − B·mean        (frozen statistics: B = C = 0)

Sums arrive as partial sums (slices, 2, C) in float64 and are added in the order of their slices.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes
from ...kernels.kernel import fast, inline
from .rows import SUM_ROWS, bounds, clear, lanes, read_gradient_executes, sum_tile, sum_tile_executes
from .simd import LANES, accumulate, address, clamp, given, keep, load, splat, store

MAX_SLICES = 16
SLICE_ELEMENTS = 16 * 1024  # elements worth an item
BLOCK = 64  # channels or weights of one item of the small kernels


def slices(rows: int, channels: int) -> int:
    """Number of slices of a map of `rows` = N·H·W: the first axis of its partial sums."""
    return max(1, min(MAX_SLICES, rows, rows * channels // SLICE_ELEMENTS))


_slices = inline(slices)


def parts_of(y) -> list[int]:
    """Rows of each slice of a map y (N, H, W, C)."""
    rows = y.shape[0] * y.shape[1] * y.shape[2]
    parts = slices(rows, y.shape[3])
    return [rows * (part + 1) // parts - rows * part // parts for part in range(parts)]


def gather_executes(sums) -> Ops:
    """What `gather` executes for every channel."""
    return ADD * (2 * (sums.shape[0] - 1) * lanes(sums.shape[2]))


@inline
def gather(sums, parts, channels, first, end):
    """Add the sums of all slices to those of slice 0, in order, for channels first … end−1."""
    for k in range(2):
        for c in range(first, end, LANES):
            v = load(sums, k * channels + c, end - c)
            for part in range(1, parts):
                v = v + load(sums, (2 * part + k) * channels + c, end - c)
            store(sums, k * channels + c, v, end - c)


@executes(
    lambda affine, moments, running_mean, running_var, sums, gamma, *rest: (
        gather_executes(sums) + (MUL * 4 + ADD * 3) * gamma.size + (MUL * 5 + ADD * 2) * running_mean.size
    )
)
@fast
def training_table(affine, moments, running_mean, running_var, sums, gamma, beta, count, eps, momentum):
    """Write affine (2, C) = (a, b) and moments (2, C) float64 = (mean, rstd) from sums (…, 2, C), which are used up.

    count: M. The running statistics are updated: momentum is the weight of the new ones, as in PyTorch, and the running
    variance takes M / (M − 1)·var.
    Empty running arrays (0,) are left out.
    """
    channels = gamma.shape[0]
    for t in prange(-(-channels // BLOCK)):
        first = np.int64(t) * BLOCK
        gather(address(sums), sums.shape[0], channels, first, min(first + BLOCK, channels))
        for c in range(first, min(first + BLOCK, channels)):
            total, squares = sums[0, 0, c], sums[0, 1, c]
            mean = total / count
            var = max(squares / count - mean * mean, 0.0) if squares == squares else squares
            rstd = 1.0 / np.sqrt(var + eps)
            moments[0, c], moments[1, c] = mean, rstd
            affine[0, c] = gamma[c] * rstd
            affine[1, c] = beta[c] - gamma[c] * rstd * mean
            if running_mean.size:
                running_mean[c] = (1.0 - momentum) * running_mean[c] + momentum * mean
                running_var[c] = (1.0 - momentum) * running_var[c] + momentum * var * count / max(count - 1, 1)


@executes(lambda affine, moments, running_mean, *rest: (MUL * 3 + ADD * 2) * running_mean.size)
@fast
def frozen_table(affine, moments, running_mean, running_var, gamma, beta, eps):
    """Write affine (2, C) = (a, b) and moments (2, C) float64 = (mean, rstd) of the running statistics."""
    channels = gamma.shape[0]
    for t in prange(-(-channels // BLOCK)):
        first = np.int64(t) * BLOCK
        for c in range(first, min(first + BLOCK, channels)):
            rstd = 1.0 / np.sqrt(np.float64(running_var[c]) + eps)
            moments[0, c], moments[1, c] = running_mean[c], rstd
            affine[0, c] = gamma[c] * rstd
            affine[1, c] = beta[c] - gamma[c] * rstd * running_mean[c]


@executes(
    lambda coef, dgamma, dbeta, sums, moments, gamma, *rest: gather_executes(sums) + (MUL * 9 + ADD * 2) * gamma.size
)
@fast
def gradient_table(coef, dgamma, dbeta, sums, moments, gamma, count, training):
    """Write coef (3, C) = (A, B, C), dgamma and dbeta (C,) from sums (…, 2, C) of dz and dz·y, and moments.

    sums are used up. training: 1 where the statistics were the batch's, 0 where they were frozen. Empty dgamma and
    dbeta are left out.
    """
    channels = gamma.shape[0]
    for t in prange(-(-channels // BLOCK)):
        first = np.int64(t) * BLOCK
        gather(address(sums), sums.shape[0], channels, first, min(first + BLOCK, channels))
        for c in range(first, min(first + BLOCK, channels)):
            total, products = sums[0, 0, c], sums[0, 1, c]
            mean, rstd = moments[0, c], moments[1, c]
            slope = rstd * (products - mean * total)
            a = gamma[c] * rstd
            b = -a * rstd * slope / count * training
            coef[0, c], coef[1, c], coef[2, c] = a, b, -a * total / count * training - b * mean
            if dgamma.size:
                dgamma[c] = slope
            if dbeta.size:
                dbeta[c] = total


@executes(lambda out, parts: ADD * ((parts.shape[0] - 1) * lanes(out.size)))
@fast
def add_slices(out, parts):
    """Output out: Σ parts over the first axis, in index order; parts (slices, …) has the elements of out after it."""
    size = out.size
    for t in prange(-(-size // (BLOCK * LANES))):
        first = np.int64(t) * BLOCK * LANES
        to, source = address(out), address(parts)
        for i in range(first, min(first + BLOCK * LANES, size), LANES):
            m = size - i
            v = load(source, i, m)
            for part in range(1, parts.shape[0]):
                v = v + load(source, part * size + i, m)
            store(to, i, v, m)


@executes(lambda sums, y: sum((sum_tile_executes(rows, y.shape[3]) for rows in parts_of(y)), NOTHING))
@fast
def statistics(sums, y):
    """Write sums (slices(N·H·W, C), 2, C) float64: Σy and Σy² of y (N, H, W, C) per slice."""
    channels = y.shape[3]
    rows = y.shape[0] * y.shape[1] * y.shape[2]
    parts = _slices(rows, channels)
    for t in prange(parts):
        part = np.int64(t)
        clear(address(sums), 2 * part * channels, 2 * (part + 1) * channels)
        first, end = rows * part // parts, rows * (part + 1) // parts
        sum_tile(
            address(y),
            first * channels,
            end - first,
            channels,
            0,
            channels,
            address(sums),
            2 * part * channels,
            channels,
        )


@inline
def normalize_rows(z, y, affine, other, other_affine, first, end, channels, act):
    """Rows first … end−1 of z."""
    lo, hi = bounds(z, act)
    for row in range(first, end):
        for c in range(0, channels, LANES):
            i, m = row * channels + c, channels - c
            v = load(y, i, m) * load(affine, c, m) + load(affine, channels + c, m)
            if given(other):
                r = load(other, i, m)
                if given(other_affine):
                    r = r * load(other_affine, c, m) + load(other_affine, channels + c, m)
                v = v + r
            store(z, i, clamp(v, lo, hi), m)


def normalize_executes(z, y, affine, other, other_affine, act) -> Ops:
    """Two multiply-adds at most: the norm, and that of the second branch or its sum."""
    each = MAC + (NOTHING if not other.size else MAC + ADD if other_affine.size else ADD)
    return each * (y.size // y.shape[3] * lanes(y.shape[3]))


@executes(normalize_executes)
@fast
def normalize(z, y, affine, other, other_affine, act):
    """Output z = act(a·y + b + other), all (N, H, W, C), where a map is needed as such: the sum of two branches.

    other: the second branch, read through `other_affine` (2, C) if that is given; (0, 0, 0, 0) for none.
    act: of `activation`. z may be y or other.
    """
    channels = y.shape[3]
    rows = y.shape[0] * y.shape[1] * y.shape[2]
    parts = _slices(rows, channels)
    for t in prange(parts):
        part = np.int64(t)
        normalize_rows(
            address(z), address(y), address(affine), address(other), address(other_affine), rows * part // parts,
            rows * (part + 1) // parts, channels, act,
        )  # fmt: skip


@inline
def gradient_rows(g, dz, z, y, affine, sums, other, other_sums, first, end, channels, act, at):
    """Rows first … end−1 of g, and their share of the sums, which go to `at`. See `gradient`, by addresses."""
    lo, hi = bounds(g, act)
    for start in range(first, end, SUM_ROWS):
        stop = min(start + SUM_ROWS, end)
        for c in range(0, channels, LANES):
            m = channels - c
            a, b = load(affine, c, m), load(affine, channels + c, m)
            total, products, others = splat(g, 0.0), splat(g, 0.0), splat(g, 0.0)
            for row in range(start, stop):
                i = row * channels + c
                e, raw = load(dz, i, m), load(y, i, m)
                if given(z):
                    e = keep(e, load(z, i, m), lo, hi)
                else:
                    e = keep(e, raw * a + b, lo, hi)
                store(g, i, e, m)
                total = total + e
                products = products + e * raw
                if given(other):
                    others = others + e * load(other, i, m)
            accumulate(sums, at + c, total, m)
            accumulate(sums, at + channels + c, products, m)
            if given(other):
                accumulate(other_sums, at + c, total, m)
                accumulate(other_sums, at + channels + c, others, m)


def gradient_executes(g, dz, z, y, affine, sums, other, other_sums, act) -> Ops:
    """The norm where it tells what is flat, and the sums: of a run of rows in registers, then added to all."""
    each = ADD + MAC + (NOTHING if z.size else MAC) + (MAC if other.size else NOTHING)
    last = ADD * (4 if other.size else 2)
    rows = parts_of(y)
    return (each * sum(rows) + last * sum(-(-n // SUM_ROWS) for n in rows)) * lanes(y.shape[3])


@executes(gradient_executes)
@fast
def gradient(g, dz, z, y, affine, sums, other, other_sums, act):
    """Output g = dz where the activation is not flat, else 0, and its sums: the backward of `normalize`.

    Maps are (N, H, W, C). z: what `normalize` gave, by which flat is decided; (0, 0, 0, 0) to decide by a·y + b (then
    there was no `other`).
    sums (slices(N·H·W, C), 2, C) float64: Σg and Σ g·y. other: the raw second branch if it has a norm of its own, and
    other_sums its Σg and Σ g·other; else (0, 0, 0, 0) and (0, 0, 0). g may be dz.
    """
    channels = y.shape[3]
    rows = y.shape[0] * y.shape[1] * y.shape[2]
    parts = _slices(rows, channels)
    for t in prange(parts):
        part = np.int64(t)
        clear(address(sums), 2 * part * channels, 2 * (part + 1) * channels)
        if other.size:
            clear(address(other_sums), 2 * part * channels, 2 * (part + 1) * channels)
        gradient_rows(
            address(g), address(dz), address(z), address(y), address(affine), address(sums), address(other),
            address(other_sums), rows * part // parts, rows * (part + 1) // parts, channels, act, 2 * part * channels,
        )  # fmt: skip


@inline
def apply_rows(dy, dz, y, coef, first, end, channels):
    """Rows first … end−1 of dy."""
    for row in range(first, end):
        for c in range(0, channels, LANES):
            i, m = row * channels + c, channels - c
            v = load(dz, i, m) * load(coef, c, m)
            if given(y):
                v = v + (load(y, i, m) * load(coef, channels + c, m) + load(coef, 2 * channels + c, m))
            store(dy, i, v, m)


@executes(lambda dy, dz, y, coef: read_gradient_executes(y, coef) * (dz.size // dz.shape[3] * lanes(dz.shape[3])))
@fast
def apply_gradient(dy, dz, y, coef):
    """Gradient dy = A·dz + B·y + C, all (N, H, W, C), for who cannot read through `coef`, (3, C). dy may be dz.

    Without y (0, 0, 0, 0) it is A·dz.
    """
    channels = dz.shape[3]
    rows = dz.shape[0] * dz.shape[1] * dz.shape[2]
    parts = _slices(rows, channels)
    for t in prange(parts):
        part = np.int64(t)
        first, end = rows * part // parts, rows * (part + 1) // parts
        apply_rows(address(dy), address(dz), address(y), address(coef), first, end, channels)
