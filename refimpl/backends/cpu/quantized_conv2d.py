"""Convolutions and linear layers in whole numbers, exact: rows of x, gathered where taps need it, times packed weights.

    total[m,k] = start[k] + Σ_d x[m,d]·w[d,k],   start[k] = b[k] − (x_zero + OFFSET)·Σ_d w[d,k]

where d runs over the taps and channels under pixel m and padding is x_zero. Sums are exact modulo 2³², so neither tiles
nor threads change a bit. A linear layer is a 1×1 convolution of its rows.
"""

from collections.abc import Mapping

import numpy as np
from numba import get_thread_id, prange

from ...compiler.executed import IADD, IMAC, IMUL, Ops, executes, pieces
from ...kernels.kernel import fast, inline
from ...kernels.requantize import double, saturated, single
from . import tiles
from .integers import OFFSET, every, narrow, operands, widen
from .quantized_product import COLUMNS, ROWS, block, each, operand, pack, words
from .simd import LANES, address

TILE_BYTES = 1 << 15  # of a gathered tile: it stays in the first or second cache
MOST_ROWS = 64
ITEMS = 8  # tiles wanted at least, so that a few threads share them evenly


def cut(sizes: Mapping, dtype) -> tuple[int, int]:
    """(rows of a tile, panels of an item) of a call whose weights are of `dtype`."""
    depth = words(_depth(sizes), each(dtype)) * 4
    rows = max(ROWS, min(MOST_ROWS, TILE_BYTES // depth // ROWS * ROWS))
    tiles_, panels = tiles.ceil_div(sizes["N"] * sizes["P"] * sizes["Q"], rows), panels_of(sizes)
    return rows, tiles.ceil_div(panels, min(panels, tiles.ceil_div(ITEMS, tiles_)))


def _depth(sizes: Mapping) -> int:
    """Products of a sum."""
    return sizes["R"] * sizes["S"] * sizes["C"] // sizes["G"]


def panels_of(sizes: Mapping) -> int:
    """Panels of all weights."""
    return sizes["G"] * tiles.ceil_div(sizes["K"] // sizes["G"], COLUMNS)


def scratch(sizes: Mapping, attrs: Mapping, dtype, threads: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name → (shape, dtype) of what a call needs beside its arrays; no tile where x is read in place."""
    count, (rows, _) = words(_depth(sizes), each(dtype)), cut(sizes, dtype)
    gathered = 0 if in_place(sizes, attrs, dtype) else rows * count * each(dtype)
    return {
        "panels": ((panels_of(sizes), count * COLUMNS), np.dtype(np.int32)),
        "starts": ((panels_of(sizes), COLUMNS), np.dtype(np.int32)),
        "tile": ((threads, gathered), operand(dtype)),
        "totals": ((threads, ROWS * COLUMNS), np.dtype(np.int32)),
    }


def in_place(sizes: Mapping, attrs: Mapping, dtype) -> bool:
    """Are rows of x read as they lie: whole words of bytes, one for each pixel?"""
    return each(dtype) == 4 and sizes["C"] % 4 == 0 and sizes["G"] == 1 and tiles.in_place(sizes, attrs)


def requantize_executes(twice: bool) -> Ops:
    """Of one number."""
    return IMUL + IADD * (5 if twice else 3)


def finish_executes(y, twice: bool) -> Ops:
    """Of one output."""
    return IADD if y.dtype == np.int32 else IADD * 2 + requantize_executes(twice)


def dense_executes(
    y, x, w, b, multiplier, shift, panels, starts, source, totals, geometry, cut, as_it_lies,
    x_zero, y_zero, low, high, twice,
) -> Ops:  # fmt: skip
    """Packing, whole blocks of rows and columns, and the outputs."""
    per = each(w.dtype)
    count = panels.shape[1] // COLUMNS
    total = IADD * (per * panels.size) + (IMUL + IADD * bool(b.size)) * w.shape[3]
    rows = y.shape[0] * y.shape[1] * y.shape[2]
    blocks = sum(tiles.ceil_div(n, ROWS) * times for n, times in pieces(rows, cut[0]))
    total += IMAC * (blocks * panels.shape[0] * ROWS * COLUMNS * count * per)
    return total + finish_executes(y, twice) * (rows * w.shape[3])


@inline
def finish(y, at, total, total_at, start, start_at, multiplier, shift, k, n, y_zero, low, high, twice):
    """Outputs at … at+n−1 of channels k … k+n−1: what is summed up and where it started, requantized."""
    if twice:
        for i in range(n):
            value = double(total[total_at + i] + start[start_at + i], multiplier[k + i], shift[k + i]) + y_zero
            y[at + i] = np.int8(saturated(value, low, high))
    else:
        for i in range(n):
            value = single(total[total_at + i] + start[start_at + i], multiplier[k + i], shift[k + i]) + y_zero
            y[at + i] = np.int8(saturated(value, low, high))


@inline
def add_start(y, at, total, total_at, start, start_at, n):
    """Sums at … at+n−1, in 32 bits."""
    for i in range(n):
        y[at + i] = total[total_at + i] + start[start_at + i]


@inline
def begin(start, at, b, k, n, zero):
    """Turn sums of weights into what the sums of n channels from k on start at; b: their bias, or nothing."""
    for i in range(n):
        value = -zero * start[at + i]
        start[at + i] = value + b[k + i] if b.size else value


@inline
def gather(tile, start, x, row0, rows, pad_value, group, depth, stride, channels, shape, out, taps, geometry):
    """Fill tile[start:] (rows, stride) with what lies under pixels row0 …: taps of `depth` channels, or pad_value.

    channels: C; shape: (H, W) of x; out: (P, Q); taps: (R, S).
    """
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    for m in range(rows):
        rest, q = divmod(row0 + m, out[1])
        n, p = divmod(rest, out[0])
        to = start + m * stride
        for r in range(taps[0]):
            h = p * stride_h - top + r * dilation_h
            for s in range(taps[1]):
                col = q * stride_w - left + s * dilation_w
                if 0 <= h and h < shape[0] and 0 <= col and col < shape[1]:
                    at = ((n * shape[0] + h) * shape[1] + col) * channels + group * depth
                    for c in range(depth):
                        tile[to + c] = x[at + c]
                else:
                    for c in range(depth):
                        tile[to + c] = pad_value
                to += depth


@executes(dense_executes)
@fast
def dense(
    y, x, w, b, multiplier, shift, panels, starts, source, totals, geometry, cut, as_it_lies,
    x_zero, y_zero, low, high, twice,
):  # fmt: skip
    """Write y (N, P, Q, K), int8, or int32 where it is the sums, from x (N, H, W, C) and w (R, S, C/G, K).

    b (K,) or (0,); multiplier, shift (K,), of int32 y (0,). panels, starts, totals: as `scratch` says. source: the rows
    that are multiplied, x as (pixels, C) where it is read as it lies, else a tile of each thread. geometry: of
    `tiles.geometry`; cut: of `cut`. The rest: of the operator.
    """
    rows, across = y.shape[0] * y.shape[1] * y.shape[2], w.shape[3]
    depth, channels = w.shape[0] * w.shape[1] * w.shape[2], x.shape[3]
    count, groups = panels.shape[1] // COLUMNS, channels // w.shape[2]
    per, offset = operands(address(source)), 0
    if per == 4:
        offset = OFFSET
    width = across // groups
    each_group = (width + COLUMNS - 1) // COLUMNS
    for t in prange(panels.shape[0]):
        group, place = divmod(np.int64(t), each_group)
        n, k = min(COLUMNS, width - place * COLUMNS), group * width + place * COLUMNS
        at, to = np.int64(t) * count * COLUMNS, np.int64(t) * COLUMNS
        pack(address(panels), at, address(starts), to, address(w), k, across, depth, n, per)
        begin(address(starts), to, b, k, n, x_zero + offset)
    step, together = cut
    chunks = (panels.shape[0] + together - 1) // together
    for t in prange((rows + step - 1) // step * chunks):
        first, chunk = divmod(np.int64(t), chunks)
        row0 = first * step
        here = min(step, rows - row0)
        own = np.int64(get_thread_id()) * source.shape[1]
        end = min((chunk + 1) * together, panels.shape[0])
        gathered = -1
        for panel in range(chunk * together, end):
            group, place = divmod(panel, each_group)
            if not as_it_lies and gathered != group:
                gather(
                    address(source), own, address(x), row0, here, x_zero, group, w.shape[2], count * per, channels,
                    (x.shape[1], x.shape[2]), (y.shape[1], y.shape[2]), (w.shape[0], w.shape[1]), geometry,
                )  # fmt: skip
                gathered = group
            n, k = min(COLUMNS, width - place * COLUMNS), group * width + place * COLUMNS
            at, stride = (row0 * channels, channels) if as_it_lies else (own, count * per)
            multiply(
                address(y), row0, here, across, k, n, address(source), at, stride, address(panels), panel, count, per,
                address(totals), get_thread_id() * ROWS * COLUMNS, address(starts), multiplier, shift,
                y_zero, low, high, twice,
            )  # fmt: skip


@inline
def multiply(
    y, row0, rows, across, k, n, x, at, stride, panels, panel, count, per, totals, total, starts, multiplier, shift,
    y_zero, low, high, twice,
):  # fmt: skip
    """Outputs of n channels from k on, of `rows` rows of x, `stride` elements apart, and a panel."""
    last = rows - 1
    for m in range(0, rows, ROWS):
        block(
            totals, total, x, at + m * stride, at + min(m + 1, last) * stride, at + min(m + 2, last) * stride,
            at + min(m + 3, last) * stride, panels, panel * count * COLUMNS, count, per,
        )  # fmt: skip
        for r in range(min(ROWS, rows - m)):
            to, of = (row0 + m + r) * across + k, total + r * COLUMNS
            if multiplier.size:
                finish(
                    y, to, totals, of, starts, panel * COLUMNS, address(multiplier), address(shift), k, n,
                    y_zero, low, high, twice,
                )  # fmt: skip
            else:
                add_start(y, to, totals, of, starts, panel * COLUMNS, n)


def depthwise_executes(y, x, w, b, multiplier, shift, totals, geometry, x_zero, y_zero, low, high, twice) -> Ops:
    """The taps that lie on the map, whole vectors; outputs."""
    vectors = tiles.ceil_div(x.shape[3], LANES) * LANES
    taps = 1
    for size, out, window, stride, dilation, before in zip(
        x.shape[1:3], y.shape[1:3], w.shape[:2], geometry[:2], geometry[2:4], geometry[4:], strict=True
    ):
        reached = np.arange(out)[:, None] * stride - before + np.arange(window) * dilation
        taps *= int(((reached >= 0) & (reached < size)).sum())
    total = (IMAC + IADD) * (x.shape[0] * taps * vectors)
    return total + finish_executes(y, twice) * y.size


@executes(depthwise_executes)
@fast
def depthwise(y, x, w, b, multiplier, shift, totals, geometry, x_zero, y_zero, low, high, twice):
    """Write y (N, P, Q, C) from x (N, H, W, C) and w (R, S, 1, C), int8 or int16, LANES channels at a time.

    b (C,) or (0,); totals (threads, 2·LANES) int32. The rest as in `bytes_`.
    """
    channels = x.shape[3]
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    for t in prange(y.shape[0] * y.shape[1]):
        n, p = divmod(np.int64(t), y.shape[1])
        total = address(totals[get_thread_id()])
        for c in range(0, channels, LANES):
            lanes = min(LANES, channels - c)
            narrow(total, LANES, widen(address(b), c, lanes) if b.size else every(0), LANES)
            for q in range(y.shape[2]):
                value = every(0)
                for r in range(w.shape[0]):
                    h = p * stride_h - top + r * dilation_h
                    if 0 <= h and h < x.shape[1]:
                        for s in range(w.shape[1]):
                            col = q * stride_w - left + s * dilation_w
                            if 0 <= col and col < x.shape[2]:
                                at = ((n * x.shape[1] + h) * x.shape[2] + col) * channels + c
                                here = widen(address(x), at, lanes) - every(x_zero)
                                value = value + here * widen(address(w), (r * w.shape[1] + s) * channels + c, lanes)
                narrow(total, 0, value, LANES)
                to = ((n * y.shape[1] + p) * y.shape[2] + q) * channels + c
                finish(address(y), to, total, 0, total, LANES, address(multiplier), address(shift), c, lanes, y_zero,
                       low, high, twice)  # fmt: skip
