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
from . import tiles
from .integers import OFFSET, every, move, narrow, operands, requantized_once, requantized_twice, widen
from .quantized_product import COLUMNS, NARROW_ROWS, ROWS, block, each, finish, narrow_block, operand, pack, words
from .simd import LANES, address

TILE_BYTES = 1 << 15  # of a gathered tile: it stays in the first or second cache
MOST_ROWS = 64
ITEMS = 8  # tiles wanted at least, so that a few threads share them evenly


def cut(sizes: Mapping, dtype) -> tuple[int, int]:
    """(rows of a tile, panels of an item) of a call whose weights are of `dtype`."""
    depth = words(_depth(sizes), each(dtype)) * 4
    rows = max(NARROW_ROWS, min(MOST_ROWS, TILE_BYTES // depth // NARROW_ROWS * NARROW_ROWS))
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
    panels = threads if sizes["N"] * sizes["P"] * sizes["Q"] <= rows else panels_of(sizes)
    return {
        "panels": ((panels, count * COLUMNS), np.dtype(np.int32)),
        "starts": ((panels, COLUMNS), np.dtype(np.int32)),
        "tile": ((threads, gathered), operand(dtype)),
        "totals": ((threads, rows * COLUMNS), np.dtype(np.int32)),
    }


def in_place(sizes: Mapping, attrs: Mapping, dtype) -> bool:
    """Are rows of x read as they lie: whole words of bytes, one for each pixel?"""
    return each(dtype) == 4 and sizes["C"] % 4 == 0 and sizes["G"] == 1 and tiles.in_place(sizes, attrs)


def put_executes(twice: bool) -> Ops:
    """Of one number that is requantized."""
    return IMUL + IADD * (6 if twice else 4)


def finish_executes(y, twice: bool) -> Ops:
    """Of one sum, which is requantized but where it is an output of 32 bits."""
    return Ops() if y.dtype == np.int32 else put_executes(twice)


def dense_executes(
    y, x, w, b, multiplier, shift, panels, starts, source, totals, geometry, cut, as_it_lies, each_packs,
    x_zero, y_zero, low, high, twice,
) -> Ops:  # fmt: skip
    """Packing, whole blocks of rows and columns, and the outputs."""
    per, depth = each(w.dtype), w.shape[0] * w.shape[1] * w.shape[2]
    count, groups = words(depth, per), x.shape[3] // w.shape[2]
    rows, width, total = y.shape[0] * y.shape[1] * y.shape[2], w.shape[3] // groups, Ops()
    for columns, panels_ in pieces(width, COLUMNS):
        across, together = (LANES, NARROW_ROWS) if columns <= LANES else (COLUMNS, ROWS)
        multiplied = sum(tiles.ceil_div(n, together) * together * times for n, times in pieces(rows, cut[0]))
        total += (IADD + IMAC * multiplied) * (groups * panels_ * per * count * across)
    total += (IMUL + IADD * bool(b.size)) * w.shape[3]
    numbers = sum(tiles.ceil_div(n, LANES) * times for n, times in pieces(width, COLUMNS)) * LANES
    return total + finish_executes(y, twice) * (rows * numbers * (w.shape[3] // width))


@inline
def put(y, at, value, multiplier, shift, lanes, y_zero, low, high, twice):
    """The first lanes of a vector of sums, requantized by vectors of multipliers and shifts."""
    if twice:
        narrow(y, at, requantized_twice(value, multiplier, shift, y_zero, low, high), lanes)
    else:
        narrow(y, at, requantized_once(value, multiplier, shift, y_zero, low, high), lanes)


@inline
def filled(n):
    """Columns of a panel of n that are multiplied."""
    return LANES if n <= LANES else COLUMNS


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
    together = dilation_w == 1 and depth == channels  # the taps of a kernel row lie side by side
    rest, q = divmod(row0, out[1])
    n, p = divmod(rest, out[0])
    for m in range(rows):
        to, col0, row = start + m * stride, q * stride_w - left, p * stride_h - top
        clear = 0 <= col0 and col0 + taps[1] <= shape[1] and 0 <= row and row + (taps[0] - 1) * dilation_h < shape[0]
        if together and clear:
            at = ((n * shape[0] + row) * shape[1] + col0) * channels
            for _ in range(taps[0]):
                take(tile, to, x, at, taps[1] * depth)
                to, at = to + taps[1] * depth, at + dilation_h * shape[1] * channels
        else:
            sides(tile, to, x, n, row, col0, pad_value, group, depth, channels, shape, taps, dilation_h, dilation_w)
        q += 1
        if q == out[1]:
            q, p = 0, p + 1
        if p == out[0]:
            p, n = 0, n + 1


@inline
def sides(tile, to, x, n, row, col0, pad_value, group, depth, channels, shape, taps, dilation_h, dilation_w):
    """Fill tile[to:] with what lies under one pixel, some of whose taps may lie beside the map.

    n, row, col0: sample, row and column of its first tap; the rest as in `gather`.
    """
    for r in range(taps[0]):
        h = row + r * dilation_h
        line = (n * shape[0] + h) * shape[1]
        if h < 0 or h >= shape[0]:
            fill(tile, to, pad_value, taps[1] * depth)
        elif dilation_w == 1 and depth == channels:
            first = min(max(0, -col0), taps[1])
            end = max(min(taps[1], shape[1] - col0), first)
            fill(tile, to, pad_value, first * depth)
            take(tile, to + first * depth, x, (line + col0 + first) * channels, (end - first) * depth)
            fill(tile, to + end * depth, pad_value, (taps[1] - end) * depth)
        else:
            for s in range(taps[1]):
                col = col0 + s * dilation_w
                if 0 <= col and col < shape[1]:
                    take(tile, to + s * depth, x, (line + col) * channels + group * depth, depth)
                else:
                    fill(tile, to + s * depth, pad_value, depth)
        to += taps[1] * depth


@inline
def fill(tile, to, value, count):
    """tile[to : to + count] = value."""
    for c in range(count):
        tile[to + c] = value


@inline
def take(tile, to, x, at, count):
    """tile[to : to + count] = x[at : at + count]."""
    for c in range(0, count, LANES):
        lanes = min(LANES, count - c)
        move(tile, to + c, x, at + c, lanes)


@executes(dense_executes)
@fast
def dense(
    y, x, w, b, multiplier, shift, panels, starts, source, totals, geometry, cut, as_it_lies, each_packs,
    x_zero, y_zero, low, high, twice,
):  # fmt: skip
    """Write y (N, P, Q, K), int8, or int32 where it is the sums, from x (N, H, W, C) and w (R, S, C/G, K).

    b (K,) or (0,); multiplier, shift (K,), of int32 y (0,). panels, starts, totals: as `scratch` says: all panels are
    packed first, or where all rows are one tile each when it is used, `each_packs`, into one of the thread. source: the
    rows that are multiplied, x as (pixels, C) where it is read as it lies, else a tile of each thread. geometry: of
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
    all_panels = groups * each_group
    for t in prange(0 if each_packs else all_panels):
        group, place = divmod(np.int64(t), each_group)
        n, k = min(COLUMNS, width - place * COLUMNS), group * width + place * COLUMNS
        at, to = np.int64(t) * count * COLUMNS, np.int64(t) * COLUMNS
        pack(address(panels), at, address(starts), to, address(w), k, across, depth, n, per, filled(n))
        begin(address(starts), to, b, k, n, x_zero + offset)
    step, together = cut
    chunks = (all_panels + together - 1) // together
    for t in prange((rows + step - 1) // step * chunks):
        first, chunk = divmod(np.int64(t), chunks)
        row0, thread = first * step, np.int64(get_thread_id())
        here, own, gathered = min(step, rows - row0), thread * source.shape[1], -1
        for panel in range(chunk * together, min((chunk + 1) * together, all_panels)):
            group, place = divmod(panel, each_group)
            if not as_it_lies and gathered != group:
                gather(
                    address(source), own, address(x), row0, here, x_zero, group, w.shape[2], count * per, channels,
                    (x.shape[1], x.shape[2]), (y.shape[1], y.shape[2]), (w.shape[0], w.shape[1]), geometry,
                )  # fmt: skip
                gathered = group
            n, k, slot = min(COLUMNS, width - place * COLUMNS), group * width + place * COLUMNS, panel
            if each_packs:
                slot, to = thread, thread * COLUMNS
                pack(address(panels), to * count, address(starts), to, address(w), k, across, depth, n, per, filled(n))
                begin(address(starts), to, b, k, n, x_zero + offset)
            at, stride = (row0 * channels, channels) if as_it_lies else (own, count * per)
            multiply(
                address(y), row0, here, across, k, n, address(source), at, stride, address(panels), slot, count, per,
                address(totals), thread * totals.shape[1], address(starts), multiplier, shift, y_zero, low, high, twice,
            )  # fmt: skip


@inline
def multiply(
    y, row0, rows, across, k, n, x, at, stride, panels, panel, count, per, totals, total, starts, multiplier, shift,
    y_zero, low, high, twice,
):  # fmt: skip
    """Outputs of n channels from k on, of `rows` rows of x, `stride` elements apart, and a panel.

    y: rows of `across` channels, written from number row0 on. at: where the first row of x begins. panels, panel,
    count, per: as `block` takes them, the panel by its number. totals, total: the sums, and where this thread's begin;
    starts: what the sum of each column of a panel begins with. multiplier, shift: of each channel, empty where y is the
    sums.
    """
    last, words = rows - 1, panel * count * COLUMNS
    start = widen(starts, panel * COLUMNS, LANES)
    if n <= LANES:
        for m in range(0, rows, NARROW_ROWS):
            to, row = total + m * COLUMNS, at + m * stride
            narrow_block(totals, to, x, row, stride, last - m, panels, words, count, per, start)
    else:
        other = widen(starts, panel * COLUMNS + LANES, LANES)
        for m in range(0, rows, ROWS):
            block(
                totals, total + m * COLUMNS, x, at + m * stride, at + min(m + 1, last) * stride,
                at + min(m + 2, last) * stride, at + min(m + 3, last) * stride, panels, words, count, per, start, other,
            )  # fmt: skip
    for v in range(0, n, LANES):
        lanes, to, of = min(LANES, n - v), row0 * across + k + v, total + v
        if not multiplier.size:
            for r in range(rows):
                narrow(y, to + r * across, widen(totals, of + r * COLUMNS, LANES), lanes)
            continue
        scale, right = widen(address(multiplier), k + v, lanes), widen(address(shift), k + v, lanes)
        finish(y, to, across, totals, of, COLUMNS, rows, scale, right, lanes, y_zero, low, high, twice)


def inner(size: int, out: int, window: int, stride: int, dilation: int, before: int) -> tuple[int, int]:
    """(first, end) of the outputs along an axis all of whose taps lie on the map."""
    first = min((before + stride - 1) // stride, out)
    last = size - 1 - (window - 1) * dilation + before
    return first, max(first, min(out, last // stride + 1 if last >= 0 else 0))


_inner = inline(inner)


def depthwise_executes(y, x, w, b, multiplier, shift, geometry, x_zero, y_zero, low, high, twice) -> Ops:
    """The taps that lie on the map, whole vectors: where one does not, each less the zero point; sums of weights."""
    vectors = tiles.ceil_div(x.shape[3], LANES) * LANES
    reached, whole = [], []
    for size, out, window, stride, dilation, before in zip(
        x.shape[1:3], y.shape[1:3], w.shape[:2], geometry[:2], geometry[2:4], geometry[4:], strict=True
    ):
        index = np.arange(out)[:, None] * stride - before + np.arange(window) * dilation
        reached.append((index >= 0) & (index < size))
        whole.append(reached[-1].all(axis=1))
    rows = int(reached[0].sum())
    across, border = int(reached[1].sum()), int(reached[1][~whole[1]].sum())
    total = IMAC * (rows * across) + IADD * (rows * border)
    total += IADD * (rows * w.shape[1]) + (IMUL + IADD) * y.shape[1]  # where inner outputs start
    total = total * (x.shape[0] * vectors)
    return total + put_executes(twice) * (y.shape[0] * y.shape[1] * y.shape[2] * vectors)


@executes(depthwise_executes)
@fast
def depthwise(y, x, w, b, multiplier, shift, geometry, x_zero, y_zero, low, high, twice):
    """Write y (N, P, Q, C) from x (N, H, W, C) and w (R, S, 1, C), int8 or int16, LANES channels at a time.

    b (C,) or (0,). The rest as in `dense`. Outputs all of whose taps lie on the map start at b − x_zero·Σ w; at a
    border each tap is taken less x_zero.
    """
    channels = x.shape[3]
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    first, end = _inner(x.shape[2], y.shape[2], w.shape[1], stride_w, dilation_w, left)
    for t in prange(y.shape[0] * y.shape[1]):
        n, p = divmod(np.int64(t), y.shape[1])
        h0 = p * stride_h - top
        r0, r1 = 0, w.shape[0]
        while r0 < r1 and h0 + r0 * dilation_h < 0:
            r0 += 1
        while r1 > r0 and h0 + (r1 - 1) * dilation_h >= x.shape[1]:
            r1 -= 1
        for c in range(0, channels, LANES):
            lanes = min(LANES, channels - c)
            bias, sums = widen(address(b), c, lanes) if b.size else every(0), every(0)
            scale, right = widen(address(multiplier), c, lanes), widen(address(shift), c, lanes)
            for r in range(r0, r1):
                for s in range(w.shape[1]):
                    sums = sums + widen(address(w), (r * w.shape[1] + s) * channels + c, lanes)
            start = bias - sums * every(x_zero)
            line = (n * x.shape[1] + h0) * x.shape[2]
            down = dilation_h * x.shape[2] * channels
            to = (n * y.shape[1] + p) * y.shape[2] * channels + c
            for q in range(y.shape[2]):
                if q == first:
                    inner_row(
                        address(y), to, address(x), line * channels + c, address(w), c, channels, r0, r1, w.shape[1],
                        down, dilation_w * channels, first, end, stride_w, left, start, lanes, scale, right,
                        y_zero, low, high, twice,
                    )  # fmt: skip
                if first <= q and q < end:
                    continue
                value = bias
                for s in range(w.shape[1]):
                    col = q * stride_w - left + s * dilation_w
                    if 0 <= col and col < x.shape[2]:
                        at = (line + col) * channels + c
                        for r in range(r0, r1):
                            here = widen(address(x), at + r * down, lanes) - every(x_zero)
                            value = value + here * widen(address(w), (r * w.shape[1] + s) * channels + c, lanes)
                put(address(y), to + q * channels, value, scale, right, lanes, y_zero, low, high, twice)


@inline
def inner_row(
    y, to, x, line, w, c, channels, r0, r1, across, down, aside, first, end, stride, left, start, lanes,
    multiplier, shift, y_zero, low, high, twice,
):  # fmt: skip
    """Outputs first … end−1 of a row, four at a time: the weights are read once for them.

    line: where the row of x begins that the first kernel row lies on; down, aside: elements from a tap to the next;
    multiplier, shift: vectors, which no store to y can change.
    """
    q = first
    step = stride * channels
    while q + 4 <= end:
        v0, v1, v2, v3 = start, start, start, start
        for r in range(r0, r1):
            for s in range(across):
                at = line + (q * stride - left) * channels + r * down + s * aside
                weight = widen(w, (r * across + s) * channels + c, lanes)
                v0 = v0 + widen(x, at, lanes) * weight
                v1 = v1 + widen(x, at + step, lanes) * weight
                v2 = v2 + widen(x, at + 2 * step, lanes) * weight
                v3 = v3 + widen(x, at + 3 * step, lanes) * weight
        put(y, to + q * channels, v0, multiplier, shift, lanes, y_zero, low, high, twice)
        put(y, to + (q + 1) * channels, v1, multiplier, shift, lanes, y_zero, low, high, twice)
        put(y, to + (q + 2) * channels, v2, multiplier, shift, lanes, y_zero, low, high, twice)
        put(y, to + (q + 3) * channels, v3, multiplier, shift, lanes, y_zero, low, high, twice)
        q += 4
    while q < end:
        v0 = start
        for r in range(r0, r1):
            for s in range(across):
                at = line + (q * stride - left) * channels + r * down + s * aside
                v0 = v0 + widen(x, at, lanes) * widen(w, (r * across + s) * channels + c, lanes)
        put(y, to + q * channels, v0, multiplier, shift, lanes, y_zero, low, high, twice)
        q += 1
