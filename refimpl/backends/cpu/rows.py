"""Reading one row of a map through the batch norm and activation before it, LANES channels at a time.

Activations are those of `activation`. `affine` (2, C) holds a and b of x̂ = act(a·x + b); `coef` (3, C)
holds A, B and C of ∂L/∂y = A·dz + B·y + C. Absent tables leave the row as it is.
"""

import numpy as np

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops
from ...kernels.kernel import inline
from ..activation import NONE, RELU6
from .simd import LANES, accumulate, clamp, given, keep, load, prefetch, prefetch_write, splat, store


def lanes(n: int) -> int:
    """n channels in whole vectors."""
    return -(-n // LANES) * LANES


@inline
def bounds(like, act):
    """Range that the activation lets through."""
    return splat(like, -np.inf if act == NONE else 0.0), splat(like, 6.0 if act == RELU6 else np.inf)


def read_row_executes(affine) -> Ops:
    """Of each element that `read_row` or `read_tile` reads."""
    return MAC if affine.size else NOTHING


@inline
def read_row(ring, at, step, x, i, columns, channels, m, affine, c, act):
    """ring[at + col·step …] = x̂[i + col·channels …] for every column: one block of m channels from channel c on."""
    if not given(affine):
        for col in range(columns):
            store(ring, at + col * step, load(x, i + col * channels, m), LANES)
        return
    a, b = load(affine, c, m), load(affine, channels + c, m)
    lo, hi = bounds(x, act)
    for col in range(columns):
        prefetch(x, i + (col + columns) * channels)
        store(ring, at + col * step, clamp(load(x, i + col * channels, m) * a + b, lo, hi), LANES)


def read_gradient_executes(y, coef) -> Ops:
    """Of each element that `read_gradient_row` or `read_gradient_tile` reads."""
    return NOTHING if not coef.size else MUL + MAC + ADD if y.size else MUL


@inline
def read_gradient_row(ring, at, step, dz, y, i, columns, channels, m, coef, c):
    """ring[at + q·step …] = ∂L/∂y[i + q·channels …] for every column q, m channels from c on."""
    if not given(coef):
        for q in range(columns):
            store(ring, at + q * step, load(dz, i + q * channels, m), LANES)
        return
    a = load(coef, c, m)
    if not given(y):
        for q in range(columns):
            store(ring, at + q * step, load(dz, i + q * channels, m) * a, LANES)
        return
    b, d = load(coef, channels + c, m), load(coef, 2 * channels + c, m)
    for q in range(columns):
        j = i + q * channels
        prefetch(dz, j + columns * channels)
        prefetch(y, j + columns * channels)
        store(ring, at + q * step, load(dz, j, m) * a + (load(y, j, m) * b + d), LANES)


SUM_ROWS = 32  # rows that are summed in the float dtype before they are added to a float64 sum


@inline
def clear(pointer, start, stop):
    """Zero elements start … stop−1."""
    for i in range(start, stop, LANES):
        store(pointer, i, splat(pointer, 0.0), stop - i)


@inline
def read_tile(out, at, x, i, rows, channels, affine, act):
    """Fill out[at …] (rows, channels) with x̂ of the rows that begin at element i of x; `affine` must be given."""
    lo, hi = bounds(x, act)
    for row in range(rows):
        k, j = row * channels, i + row * channels
        for c in range(0, channels, LANES):
            m = channels - c
            prefetch(x, j + c + rows * channels)  # the next tile, while this one is worked on
            v = clamp(load(x, j + c, m) * load(affine, c, m) + load(affine, channels + c, m), lo, hi)
            store(out, at + k + c, v, m)


@inline
def read_gradient_tile(out, at, dz, y, i, rows, channels, coef):
    """Fill out[at …] (rows, channels) with ∂L/∂y, rows of dz and y from element i on; `coef` must be given."""
    for row in range(rows):
        k, j = row * channels, i + row * channels
        for c in range(0, channels, LANES):
            m = channels - c
            prefetch(dz, j + c + rows * channels)
            g = load(dz, j + c, m) * load(coef, c, m)
            if given(y):
                prefetch(y, j + c + rows * channels)
                g = g + (load(y, j + c, m) * load(coef, channels + c, m) + load(coef, 2 * channels + c, m))
            store(out, at + k + c, g, m)


def sum_tile_executes(rows: int, channels: int) -> Ops:
    """What `sum_tile` executes."""
    return ((ADD + MAC) * rows + ADD * (2 * -(-rows // SUM_ROWS))) * lanes(channels)


@inline
def sum_tile(y, i, rows, stride, first, end, sums, at, channels):
    """sums[at + c] += Σ y and sums[at + channels + c] += Σ y², over rows of `stride` elements, for channels first …"""
    for start in range(0, rows, SUM_ROWS):
        stop = min(start + SUM_ROWS, rows)
        for c in range(first, end, LANES):
            m = end - c
            total, squares = splat(y, 0.0), splat(y, 0.0)
            for row in range(start, stop):
                prefetch_write(y, i + (row + rows) * stride + c)  # the next tile
                v = load(y, i + row * stride + c, m)
                total = total + v
                squares = squares + v * v
            accumulate(sums, at + c, total, m)
            accumulate(sums, at + channels + c, squares, m)


def finish_gradient_tile_executes(rows: int, channels: int, residual, prev_affine, prev_act, sums) -> Ops:
    """What `finish_gradient_tile` executes."""
    masked = prev_affine.size > 0 and prev_act != NONE
    each = (ADD if residual.size else NOTHING) + (MAC if masked else NOTHING)
    each += ADD + MAC if masked or sums.size else NOTHING
    last = ADD * (2 * -(-rows // SUM_ROWS)) if sums.size else NOTHING
    return (each * rows + last) * lanes(channels)


@inline
def finish_gradient_tile(
    dx, tile, at, residual, prev, i, rows, channels, first, end, affine, act, sums, sums_at
):  # fmt: skip
    """Turn a gradient behind an activation into the one behind its batch norm: dx ← tile + residual, zero where flat.

    tile[at …] (rows, end − first) holds channels first … end−1 of `channels`; rows of dx, residual and prev begin at
    element i. Flat is act(a·prev + b) with affine = (a, b), nowhere without it. If there are sums, sums[sums_at + c] +=
    Σ dx and sums[sums_at + channels + c] += Σ dx·prev; `prev` is read for these two only.
    """
    lo, hi = bounds(dx, act)
    masked = given(affine) and act != NONE
    for start in range(0, rows, SUM_ROWS):
        stop = min(start + SUM_ROWS, rows)
        for c in range(first, end, LANES):
            m = end - c
            a, b = splat(dx, 1.0), splat(dx, 0.0)
            if masked:
                a, b = load(affine, c, m), load(affine, channels + c, m)
            total, products = splat(dx, 0.0), splat(dx, 0.0)
            for row in range(start, stop):
                j = i + row * channels + c
                prefetch_write(dx, j + rows * channels)
                e = load(tile, at + row * (end - first) + c - first, m)
                if given(residual):
                    e = e + load(residual, j, m)
                if masked or given(sums):
                    prefetch(prev, j + rows * channels)
                    raw = load(prev, j, m)
                    if masked:
                        e = keep(e, raw * a + b, lo, hi)
                    total = total + e
                    products = products + e * raw
                store(dx, j, e, m)
            if given(sums):
                accumulate(sums, sums_at + c, total, m)
                accumulate(sums, sums_at + channels + c, products, m)
