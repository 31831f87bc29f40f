"""Products of 8-bit training: whole numbers are multiplied and summed exactly, what comes out is scaled to floats.

    product      y = s·(a convolution of x with w) + b, or turned: dx = s·(dy with w), s along the samples
    depthwise    the same for one channel a group
    grad_w       dw = s_x·Σ_n s_n·(the sum over the pixels of a sample), a product of dy, its pixels side by side in
                 rows, and of what lies under the taps, its pixels packed as `quantized_product` packs weights
    grad_w_depthwise

Turned, outputs are cut into the parts that meet the same taps: of stride 2, those at even rows and columns, and so on.
Each part is a convolution of dy of stride 1 with its taps, the last one first (`part`), and one that meets no tap is 0.
"""

from collections.abc import Mapping

import numpy as np
from numba import get_thread_id, prange

from ...compiler.executed import ADD, IADD, IMAC, IMUL, MUL, Ops, executes, pieces
from ...kernels.kernel import fast, inline
from . import tiles
from .integers import OFFSET, as_floats, every, join2, join4, narrow, operands, scatter, widen
from .quantized_conv2d import MOST_ROWS, TILE_BYTES, gather
from .quantized_product import COLUMNS, ROWS, block, each, operand, pack, words
from .simd import LANES, address, load, splat, store

ITEMS = 8  # pieces of work wanted at least, so that a few threads share them evenly
PIXELS = 512  # whose products of 8 and 16 bits surely fit into a sum of 32
SLICES = 4  # of the samples, each with partial sums of its own
PARTIALS = 256 * 1024  # elements of all partial sums together
GATHERED = 1 << 16  # bytes of what lies under the taps of some pixels: it stays in the second-level cache


def part(turned, first, size, taps, stride, dilation, before):
    """One part of an axis: (outputs, first tap, step to the next, taps, stride, dilation, before).

    first: the first output of the part, of those that lie `stride` apart; size: all outputs. Output number i meets tap
    number j at i·stride − before + j·dilation of what is gathered. Not turned, there is one part.
    """
    if not turned:
        return size, 0, 1, taps, stride, dilation, before
    outputs = (size - first + stride - 1) // stride
    tap, apart = 0, 1
    while tap < taps and (first + before - tap * dilation) % stride != 0:
        tap += 1
    while apart * dilation % stride != 0:
        apart += 1
    if tap == taps:
        return outputs, 0, 1, 0, 1, 1, 0
    count = (taps - tap + apart - 1) // apart
    last = tap + (count - 1) * apart
    return outputs, last, -apart, count, 1, apart * dilation // stride, -((first + before - last * dilation) // stride)


_part = inline(part)


def plan(turned: bool, out: tuple, window: tuple, geometry: tuple) -> list[tuple]:
    """The parts of both axes, (rows, columns) as `part` gives them, in the order of the kernels."""
    (stride_h, stride_w, dilation_h, dilation_w, top, left) = geometry
    return [
        (
            part(turned, h, out[0], window[0], stride_h, dilation_h, top),
            part(turned, w, out[1], window[1], stride_w, dilation_w, left),
        )
        for h in range(stride_h if turned else 1)
        for w in range(stride_w if turned else 1)
    ]


def _shape(sizes: Mapping, turned: bool) -> tuple[tuple, int, int]:
    """(rows and columns of the outputs, channels of a group that are summed, channels of a group that come out)."""
    depth, width = sizes["C"] // sizes["G"], sizes["K"] // sizes["G"]
    return ((sizes["H"], sizes["W"]), width, depth) if turned else ((sizes["P"], sizes["Q"]), depth, width)


def in_place(sizes: Mapping, attrs: Mapping, turned: bool) -> bool:
    """Are the rows of the one operand read as they lie: whole words of bytes, one for each pixel?"""
    _, depth, _ = _shape(sizes, turned)
    return each(np.int8) == 4 and depth % 4 == 0 and sizes["G"] == 1 and tiles.in_place(sizes, attrs)


def product_cut(sizes: Mapping, attrs: Mapping, turned: bool) -> tuple[int, int]:
    """(rows of a tile, panels of an item)."""
    out, depth, width = _shape(sizes, turned)
    found = plan(turned, out, (sizes["R"], sizes["S"]), tiles.geometry(attrs))
    deepest = max(words(h[3] * w[3] * depth, each(np.int8)) for h, w in found) * 4
    rows = max(ROWS, min(MOST_ROWS, TILE_BYTES // max(deepest, 1) // ROWS * ROWS))
    all_rows = sum(tiles.ceil_div(sizes["N"] * h[0] * w[0], rows) for h, w in found)
    panels = sizes["G"] * tiles.ceil_div(width, COLUMNS)
    return rows, tiles.ceil_div(panels, min(panels, tiles.ceil_div(ITEMS, all_rows)))


def product_scratch(sizes: Mapping, attrs: Mapping, turned: bool, threads: int) -> dict[str, tuple[tuple, np.dtype]]:
    """Name → (shape, dtype) of what `product` needs beside its arrays."""
    out, depth, width = _shape(sizes, turned)
    found = plan(turned, out, (sizes["R"], sizes["S"]), tiles.geometry(attrs))
    counts = [words(h[3] * w[3] * depth, each(np.int8)) for h, w in found]
    panels, rows = sizes["G"] * tiles.ceil_div(width, COLUMNS), product_cut(sizes, attrs, turned)[0]
    gathered = 0 if in_place(sizes, attrs, turned) else rows * max(counts) * each(np.int8)
    return {
        "turned": ((sizes["R"] * sizes["S"] * depth * width * sizes["G"] if turned else 0,), np.dtype(np.int8)),
        "panels": ((sum(counts) * panels * COLUMNS,), np.dtype(np.int32)),
        "starts": ((len(found) * panels * COLUMNS,), np.dtype(np.int32)),
        "tile": ((threads, gathered), operand(np.int8)),
        "totals": ((threads, rows * COLUMNS), np.dtype(np.int32)),
    }


def product_executes(
    y, x, w, b, row_scale, w_scale, turned, panels, starts, source, totals, geometry, cut, as_it_lies, is_turned
) -> Ops:
    """Packing, whole blocks of rows and columns, and the outputs, whole vectors of them."""
    per, window = each(np.int8), w.shape[:2]
    groups = (y if is_turned else x).shape[3] // w.shape[2]
    depth, width = x.shape[3] // groups, y.shape[3] // groups
    all_panels = groups * tiles.ceil_div(width, COLUMNS)
    numbers = groups * sum(tiles.ceil_div(n, LANES) * times for n, times in pieces(width, COLUMNS)) * LANES
    total = Ops()
    for h, v in plan(is_turned, y.shape[1:3], window, geometry):
        count, rows = words(h[3] * v[3] * depth, per), y.shape[0] * h[0] * v[0]
        total += (IADD * (per * count) + IMUL) * (all_panels * COLUMNS)
        blocks = sum(tiles.ceil_div(n, ROWS) * times for n, times in pieces(rows, cut[0]))
        total += IMAC * (blocks * all_panels * ROWS * COLUMNS * count * per)
        total += (IADD + MUL + ADD * bool(b.size)) * (rows * numbers) + MUL * (rows * all_panels)
    return total


@executes(product_executes)
@fast
def product(
    y, x, w, b, row_scale, w_scale, turned, panels, starts, source, totals, geometry, cut, as_it_lies, is_turned
):
    """Write y (N, P, Q, K), floats, from x (N, H, W, C) and w (R, S, C/G, K), int8; b: (K,) or (0,).

    is_turned: y is (N, H, W, C) and x (N, P, Q, K). row_scale: of each sample, or not turned one for all; w_scale:
    (1,). turned, panels, starts, totals: as `product_scratch` says. source: the rows that are multiplied, x as (pixels,
    channels) where it is read as it lies, else a tile of each thread. geometry: of `tiles.geometry`, that of the
    forward pass; cut: of `product_cut`.
    """
    groups = (y.shape[3] if is_turned else x.shape[3]) // w.shape[2]
    channels, across = x.shape[3], y.shape[3]
    depth, width = channels // groups, across // groups
    per, offset = operands(address(source)), 0
    if per == 4:
        offset = OFFSET
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    parts_h, parts_w = (stride_h, stride_w) if is_turned else (1, 1)
    each_group = (width + COLUMNS - 1) // COLUMNS
    all_panels = groups * each_group
    if is_turned:
        for t in prange(w.shape[0] * w.shape[1]):
            r, s = divmod(np.int64(t), w.shape[1])
            turn(turned, w, r, s, across, depth, width, groups, geometry)
    for t in prange(parts_h * parts_w * all_panels):
        where, panel = divmod(np.int64(t), all_panels)
        first, at, taps = begins(where, parts_w, is_turned, y.shape, w.shape, depth, geometry)
        count = (taps * depth + per - 1) // per
        group, place = divmod(panel, each_group)
        n, k = min(COLUMNS, width - place * COLUMNS), group * width + place * COLUMNS
        to, own = np.int64(t) * COLUMNS, (at * all_panels + panel * count) * COLUMNS
        if is_turned:
            pack(address(panels), own, address(starts), to, address(turned), first * across + k, across, taps * depth,
                 n, per)  # fmt: skip
        else:
            pack(address(panels), own, address(starts), to, address(w), k, across, taps * depth, n, per)
        for v in range(0, COLUMNS, LANES):
            narrow(address(starts), to + v, widen(address(starts), to + v, LANES) * every(-offset), LANES)
    step, together = cut
    chunks = (all_panels + together - 1) // together
    items = 0
    for where in range(parts_h * parts_w):
        h = _part(is_turned, where // parts_w, y.shape[1], w.shape[0], stride_h, dilation_h, top)
        v = _part(is_turned, where % parts_w, y.shape[2], w.shape[1], stride_w, dilation_w, left)
        items += (y.shape[0] * h[0] * v[0] + step - 1) // step * chunks
    for t in prange(items):
        rest, where = np.int64(t), 0
        h = _part(is_turned, 0, y.shape[1], w.shape[0], stride_h, dilation_h, top)
        v = _part(is_turned, 0, y.shape[2], w.shape[1], stride_w, dilation_w, left)
        here = (y.shape[0] * h[0] * v[0] + step - 1) // step * chunks
        while rest >= here:
            rest, where = rest - here, where + 1
            h = _part(is_turned, where // parts_w, y.shape[1], w.shape[0], stride_h, dilation_h, top)
            v = _part(is_turned, where % parts_w, y.shape[2], w.shape[1], stride_w, dilation_w, left)
            here = (y.shape[0] * h[0] * v[0] + step - 1) // step * chunks
        tile, chunk = divmod(rest, chunks)
        _, at, taps = begins(where, parts_w, is_turned, y.shape, w.shape, depth, geometry)
        count = (taps * depth + per - 1) // per
        row0, thread, gathered = tile * step, np.int64(get_thread_id()), -1
        rows, own = min(step, y.shape[0] * h[0] * v[0] - row0), thread * source.shape[1]
        for panel in range(chunk * together, min((chunk + 1) * together, all_panels)):
            group, place = divmod(panel, each_group)
            if not as_it_lies and gathered != group:
                gather(
                    address(source), own, address(x), row0, rows, 0, group, depth, count * per, channels,
                    (x.shape[1], x.shape[2]), (h[0], v[0]), (h[3], v[3]), (h[4], v[4], h[5], v[5], h[6], v[6]),
                )  # fmt: skip
                gathered = group
            begin, stride = (row0 * channels, channels) if as_it_lies else (own, count * per)
            last, total = rows - 1, thread * totals.shape[1]
            for m in range(0, rows, ROWS):
                block(
                    address(totals), total + m * COLUMNS, address(source), begin + m * stride,
                    begin + min(m + 1, last) * stride, begin + min(m + 2, last) * stride,
                    begin + min(m + 3, last) * stride, address(panels), (at * all_panels + panel * count) * COLUMNS,
                    count, per, every(0), every(0),
                )  # fmt: skip
            n, k = min(COLUMNS, width - place * COLUMNS), group * width + place * COLUMNS
            finish(
                address(y), address(b), row_scale, w_scale, address(totals), total, address(starts),
                (where * all_panels + panel) * COLUMNS, row0, rows, k, n, y.shape, (h[0], v[0]),
                (where // parts_w, where % parts_w), (parts_h, parts_w), b.size, is_turned,
            )  # fmt: skip


@inline
def begins(where, parts_w, is_turned, out, window, depth, geometry):
    """(rows of the turned weights, words of a column) before a part, and the taps that it meets."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    rows, count, taps = 0, 0, 0
    per = _each_byte
    for i in range(where + 1):
        rows += taps * depth
        count += (taps * depth + per - 1) // per
        h = _part(is_turned, i // parts_w, out[1], window[0], stride_h, dilation_h, top)
        v = _part(is_turned, i % parts_w, out[2], window[1], stride_w, dilation_w, left)
        taps = h[3] * v[3]
    return rows, count, taps


_each_byte = each(np.int8)


@inline
def turn(turned, w, r, s, across, depth, width, groups, geometry):
    """Write the weights of one tap to where its part has them: rows of (K/G, C), as w has rows of (C/G, K)."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    row = 0
    for where in range(stride_h * stride_w):
        # only which taps a part has is asked for, whatever its outputs are
        h = _part(True, where // stride_w, stride_h, w.shape[0], stride_h, dilation_h, top)
        v = _part(True, where % stride_w, stride_w, w.shape[1], stride_w, dilation_w, left)
        i, j = (h[1] - r) // -h[2], (v[1] - s) // -v[2]
        if 0 <= i < h[3] and 0 <= j < v[3] and h[1] + i * h[2] == r and v[1] + j * v[2] == s:
            to = (row + (i * v[3] + j) * depth) * across
            for group in range(groups):
                for k in range(depth):
                    for c in range(width):
                        turned[to + k * across + group * width + c] = w[r, s, c, group * depth + k]
        row += h[3] * v[3] * depth


@inline
def finish(y, b, row_scale, w_scale, totals, total, starts, start, row0, rows, k, n, shape, out, first, step, biased,
           is_turned):  # fmt: skip
    """Scale the sums of `rows` outputs of a part, from number row0 on, to n channels of y from k on.

    totals, total: the sums, and where they begin; starts, start: what each column adds to them, and where it begins.
    shape: of y; out, first: outputs of the part, and its first one, along both axes; step: how far apart they lie in y.
    biased: is b added? is_turned: has each sample a row_scale?
    """
    rest, j = divmod(row0, out[1])
    sample, i = divmod(rest, out[0])
    for m in range(rows):
        to = ((sample * shape[1] + first[0] + i * step[0]) * shape[2] + first[1] + j * step[1]) * shape[3] + k
        scale = splat(y, row_scale[sample if is_turned else 0] * w_scale[0])
        for v in range(0, n, LANES):
            whole = widen(totals, total + m * COLUMNS + v, LANES) + widen(starts, start + v, LANES)
            value = as_floats(whole, y) * scale
            if biased:
                value = value + load(b, k + v, min(LANES, n - v))
            store(y, to + v, value, min(LANES, n - v))
        j += 1
        if j == out[1]:
            j, i = 0, i + 1
        if i == out[0]:
            i, sample = 0, sample + 1


def grad_w_cut(sizes: Mapping, attrs: Mapping, dtype, one_scale: bool) -> tuple[int, int, int, int]:
    """(samples of a slice, pixels of a tile, kernel rows of an item, panels of an item); dtype: of dy.

    one_scale: a tile may hold pixels of several samples, for their scales are equal.
    """
    rows, columns = sizes["R"], sizes["S"] * (sizes["C"] // sizes["G"])
    slices = min(sizes["N"], SLICES, max(1, PARTIALS // (rows * columns * sizes["K"])))
    per_slice = tiles.ceil_div(sizes["N"], slices)
    slices = tiles.ceil_div(sizes["N"], per_slice)
    straight = tiles.in_place(sizes, attrs)
    together = rows if slices > 1 else 1  # threads share the slices, or else the rows of the kernel
    if straight:
        panels = sizes["G"] * tiles.ceil_div(columns, COLUMNS)
        of_item = tiles.ceil_div(panels, min(panels, tiles.ceil_div(ITEMS // 2, slices)))
        fit = PIXELS
    else:
        of_item = sizes["G"] * tiles.ceil_div(together * columns, COLUMNS)
        fit = GATHERED // (together * columns)
    pixels, per = sizes["P"] * sizes["Q"] * (per_slice if one_scale else 1), each(dtype)
    most = max(4 * per, min(PIXELS, fit, GATHERED // sizes["K"]) // per * per)
    return per_slice, min(PIXELS, tiles.even(pixels, most, per)) if pixels > most else pixels, together, of_item


def grad_w_scratch(
    sizes: Mapping, attrs: Mapping, dtype, floats, one_scale: bool, threads: int
) -> dict[str, tuple[tuple, np.dtype]]:
    """Name → (shape, dtype) of what `grad_w` needs beside its arrays; dtype: of dy, floats: of dw."""
    per_slice, pixels, together, _ = grad_w_cut(sizes, attrs, dtype, one_scale)
    columns, count = sizes["S"] * (sizes["C"] // sizes["G"]), words(pixels, each(dtype))
    gathered = 0 if tiles.in_place(sizes, attrs) else pixels * together * columns
    slices = tiles.ceil_div(sizes["N"], per_slice)
    return {
        "partials": ((slices, sizes["K"] * sizes["R"] * columns), np.dtype(floats)),
        "rows": ((threads, sizes["K"] * count * each(dtype)), operand(dtype)),
        "tile": ((threads, gathered), np.dtype(np.int8)),
        "panel": ((threads, (count + 1) * COLUMNS), np.dtype(np.int32)),
        "totals": ((threads, (sizes["K"] // sizes["G"] + ROWS - 1) // ROWS * ROWS * COLUMNS), np.dtype(np.int32)),
    }


def grad_w_executes(
    dw, dy, x, dy_scale, x_scale, partials, rows, tile, panel, totals, geometry, cut, as_it_lies, one_scale
) -> Ops:
    """Packing, whole blocks, sums of the samples and of the slices."""
    per_slice, pixels, together, _ = cut
    per, groups = each(dy.dtype), x.shape[3] // dw.shape[2]
    width, samples, map_ = dw.shape[3] // groups, dy.shape[0], dy.shape[1] * dy.shape[2]
    runs = pieces(samples * map_, per_slice * map_) if one_scale else [(map_, samples)]
    found_tiles = [(length, times * many) for run, many in runs for length, times in pieces(run, pixels)]
    total = Ops()
    for height, many in pieces(dw.shape[0], together):
        columns = height * dw.shape[1] * dw.shape[2]
        for n, times in pieces(columns, COLUMNS):
            vectors = tiles.ceil_div(n, LANES) * LANES
            for length, tiles_ in found_tiles:
                count = words(length, per)
                found = IADD * (per * count * COLUMNS) + IMUL * vectors
                found += IMAC * (tiles.ceil_div(width, ROWS) * ROWS * COLUMNS * count * per)
                found += (IADD + MUL + ADD) * (width * vectors)
                total += found * (groups * many * times * tiles_)
    slices = tiles.ceil_div(dy.shape[0], per_slice)
    return total + (ADD * slices + MUL) * dw.size


@executes(grad_w_executes)
@fast
def grad_w(dw, dy, x, dy_scale, x_scale, partials, rows, tile, panel, totals, geometry, cut, as_it_lies, one_scale):
    """Write dw (R, S, C/G, K), floats, from dy (N, P, Q, K), int8 or int16, x (N, H, W, C), int8, and their scales.

    dy_scale: (N,); x_scale: (1,). partials: a sum of each slice, (K, R·S·C/G); rows, tile, panel, totals: of each
    thread, as `grad_w_scratch` says. cut: of `grad_w_cut`; as_it_lies: x is read in place of the tile. one_scale: are
    the scales of all samples equal?
    """
    per_slice, most, together, of_item = cut
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    pixels, across, channels = dy.shape[1] * dy.shape[2], dw.shape[3], x.shape[3]
    depth = dw.shape[2]
    groups, line = channels // depth, dw.shape[1] * depth
    width, of_k = across // groups, dw.shape[0] * line
    per, offset = operands(address(rows)), 0
    if per == 4:
        offset = OFFSET
    slices = (dy.shape[0] + per_slice - 1) // per_slice
    bands = (dw.shape[0] + together - 1) // together
    chunks = (groups * ((together * line + COLUMNS - 1) // COLUMNS) + of_item - 1) // of_item
    for t in prange(slices * bands * chunks):
        rest, chunk = divmod(np.int64(t), chunks)
        slice_, band = divmod(rest, bands)
        r0, thread = band * together, np.int64(get_thread_id())
        height = min(together, dw.shape[0] - r0)
        columns = height * line
        each_group = (columns + COLUMNS - 1) // COLUMNS
        panels = range(chunk * of_item, min((chunk + 1) * of_item, groups * each_group))
        clear(partials, slice_, r0 * line, of_k, width, columns, each_group, panels)
        start, end = slice_ * per_slice, min((slice_ + 1) * per_slice, dy.shape[0])
        run = (end - start if one_scale else 1) * pixels
        for sample in range(start, start + 1 if one_scale else end):
            for pixel in range(0, run, most):
                here, gathered = min(most, run - pixel), -1
                row0, count = sample * pixels + pixel, (here + per - 1) // per
                lay(address(rows), thread * rows.shape[1], address(dy), row0 * across, across, here, count, per)
                for one in panels:
                    group, place = divmod(one, each_group)
                    if not as_it_lies and gathered != group:
                        gather(
                            address(tile), thread * tile.shape[1], address(x), row0, here, 0, group, depth, columns,
                            channels, (x.shape[1], x.shape[2]), (dy.shape[1], dy.shape[2]), (height, dw.shape[1]),
                            (stride_h, stride_w, dilation_h, dilation_w, top - r0 * dilation_h, left),
                        )  # fmt: skip
                        gathered = group
                    column = place * COLUMNS
                    n, own = min(COLUMNS, columns - column), thread * panel.shape[1]
                    sums = own + count * COLUMNS
                    if as_it_lies:
                        pack(address(panel), own, address(panel), sums, address(x),
                             row0 * channels + group * depth + column, channels, here, n, per)  # fmt: skip
                    else:
                        pack(address(panel), own, address(panel), sums, address(tile),
                             thread * tile.shape[1] + column, columns, here, n, per)  # fmt: skip
                    add(
                        address(partials), slice_ * partials.shape[1] + group * width * of_k + r0 * line + column,
                        of_k, n, width, address(rows), thread * rows.shape[1] + group * width * count * per,
                        address(panel), own, sums, count, per, address(totals), thread * totals.shape[1],
                        dy_scale[sample], offset,
                    )  # fmt: skip
    for t in prange(of_k):
        r, rest = divmod(np.int64(t), line)
        s, c = divmod(rest, depth)
        for k in range(across):
            total = dw.dtype.type(0)
            for one in range(slices):
                total += partials[one, k * of_k + np.int64(t)]
            dw[r, s, c, k] = x_scale[0] * total


@inline
def clear(partials, slice_, column0, of_k, width, columns, each_group, panels):
    """Set what these panels are to be added to, of one slice, to zero."""
    zero = splat(address(partials), 0.0)
    for one in panels:
        group, place = divmod(one, each_group)
        n = min(COLUMNS, columns - place * COLUMNS)
        for k in range(group * width, (group + 1) * width):
            at = slice_ * partials.shape[1] + k * of_k + column0 + place * COLUMNS
            for v in range(0, n, LANES):
                store(address(partials), at + v, zero, min(LANES, n - v))


@inline
def lay(rows, own, dy, at, across, here, count, per):
    """Write the channels of `here` pixels of dy as rows of `count` words, the pixels of a word side by side."""
    for g in range(count):
        left = here - per * g
        for k in range(0, across, LANES):
            n, d = min(LANES, across - k), at + per * g * across + k
            r0, r1 = widen(dy, d, n), widen(dy, d + across, n if left > 1 else 0)
            if per == 4:
                r2 = widen(dy, d + 2 * across, n if left > 2 else 0)
                r3 = widen(dy, d + 3 * across, n if left > 3 else 0)
                word = join4(r0, r1, r2, r3)
            else:
                word = join2(r0, r1)
            scatter(rows, own + (k * count + g) * per, count * per, word, n)


@inline
def add(
    partials, to, of_k, n, width, rows, at, panel, own, sums, count, per, totals, total, scale, offset
):  # fmt: skip
    """Add to the sums of `width` channels, `of_k` apart, the scaled products of their rows with a panel's n columns.

    to: where the sums of the first channel begin in partials. rows, at: the rows of `count` words that `lay` made, and
    where they begin; panel, own, sums: the packed columns, where they begin, and where their sums are. totals, total:
    whole sums in between, and where they begin. offset: what each number of the rows counts too much.
    """
    last, row = width - 1, count * per
    for m in range(0, width, ROWS):
        block(
            totals, total + m * COLUMNS, rows, at + m * row, at + min(m + 1, last) * row, at + min(m + 2, last) * row,
            at + min(m + 3, last) * row, panel, own, count, per, every(0), every(0),
        )  # fmt: skip
    factor = splat(partials, scale)
    for v in range(0, n, LANES):
        start, lanes = widen(panel, sums + v, LANES) * every(-offset), min(LANES, n - v)
        for k in range(width):
            value = as_floats(widen(totals, total + k * COLUMNS + v, LANES) + start, partials) * factor
            place = to + k * of_k + v
            store(partials, place, load(partials, place, lanes) + value, lanes)
