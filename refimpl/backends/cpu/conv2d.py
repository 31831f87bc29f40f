"""Convolution on tiles of output pixels: gather the taps of a tile (im2col), multiply, finish it while it is in cache.

A 1×1 convolution with stride 1 reads its input in place. A pixel is one (n, p, q); pixels are numbered in this order,
so a tile of them is a block of consecutive rows of y seen as (N·P·Q, K). Gradients read dy through the mask and scale
of what followed the convolution: dy_eff = dy·scale where the mask's bit is set, else 0; either may be absent (empty).
Letters as in `ops.conv2d`. Masks are `uint8 (N, B)`, B = ⌈P·Q·K / 8⌉, laid out as `memory` says. Arrays are
C-contiguous. No kernel allocates; scratch comes from the caller, its shape, like the geometry and the tiling, from
`tiles`.
"""

import numpy as np
from numba import get_thread_id, prange

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes, pieces
from ...kernels.geometry import inside
from ...kernels.kernel import inline
from ..activation import NONE
from .finish import activation_bits, finish, finish_narrow
from .gather import dy_tile, gather, gather_taps, scatter, up
from .matmul import product, product_executes
from .memory import clear, moved, turn
from .shared import TileKernel
from .tiles import NARROW, ceil_div

STRIP = 64  # input channels that one item transposes


@inline
def reads_in_place(w, y, x, geometry):
    """Is a convolution from x to y 1×1 with stride 1 and no padding?"""
    stride_h, stride_w, _, _, top, left = geometry
    one = w.shape[0] * w.shape[1] * stride_h * stride_w == 1 and top + left == 0
    return one and y.shape[1] == x.shape[1] and y.shape[2] == x.shape[2]


def forward_executes(y, mask, x, w, scale, shift, residual, scratch, geometry, tiles, act) -> Ops:
    """The products of gathered tiles, padded taps included, and what is done to each element of y after them."""
    samples, part, channels, _, _ = tiles
    size, (r, s, depth, width) = y.dtype.itemsize, w.shape
    one_channel = x.shape[3] == 1 and not reads_in_place.py_func(w, y, x, geometry)
    narrow, groups = one_channel and width < NARROW, x.shape[3] // depth
    given = [MUL * bool(scale.size), ADD * bool(shift.size), ADD * bool(residual.size)]
    after = MAC + given[2] if narrow else sum(given, NOTHING)
    total, pixels = after * y.size, y.shape[1] * y.shape[2]
    for together, i in pieces(y.shape[0], samples):
        for length, j in pieces(pixels, part):
            rows = (together - 1) * pixels + length
            for k, l in pieces(width, channels):
                if narrow:
                    own = product_executes(width, rows, r * s, size)
                else:
                    own = product_executes(rows, k if groups == 1 else width // groups, r * s * depth, size) * groups
                total += own * (i * j * l)
    return total


@executes(forward_executes)
@TileKernel
def forward(y, mask, x, w, scale, shift, residual, scratch, geometry, tiles, act):
    """Output y = act(scale·conv(x, w) + shift + residual) and, where `mask` is not empty, the bits of the activation.

    y (N, P, Q, K), mask (N, B), x (N, H, W, C), w (R, S, C/G, K), scale and shift (K,), residual (N, P, Q, K): mask,
    scale, shift and residual may be empty. act: of `activation`; a bit tells 0 < y (and y < 6 for RELU6).
    scratch (threads, s), geometry and tiles: of `tiles.forward_scratch`, `tiles.geometry` and `tiles.forward_tiles`.
    """
    samples, part, channels, tap_rows, tap_columns = tiles
    direct = reads_in_place(w, y, x, geometry)
    sides = (x.shape[1], x.shape[2], x.shape[3])
    pixels = y.shape[1] * y.shape[2]
    parts, blocks = up(pixels, part), up(y.shape[3], channels)
    for t in prange(up(y.shape[0], samples) * parts * blocks):
        item = np.int64(t)
        k0 = item % blocks * channels
        k1 = min(k0 + channels, y.shape[3])
        n0 = item // blocks // parts * samples
        n1 = min(n0 + samples, y.shape[0])
        first = item // blocks % parts * part
        last = min(first + part, pixels)
        row0 = n0 * pixels + first
        rows = (n1 - n0 - 1) * pixels + last - first
        own = scratch[get_thread_id()]
        if x.shape[3] == 1 and not direct:
            _multiply_one_channel(y, x, w, own, row0, rows, k0, k1, geometry, tap_rows, tap_columns)
            if y.shape[3] < NARROW:
                aside = tap_rows * tap_columns * rows
                finish_narrow(y, y.shape[3], row0, rows, own, aside, scale, scale.shape[0], shift, shift.shape[0],
                              residual, residual.shape[0], act)  # fmt: skip
        else:
            _multiply(y, x, 0, sides, w, own, 0, row0, rows, k0, k1, geometry, tap_rows, tap_columns, direct, False)
        narrow = y.shape[3] < NARROW and x.shape[3] == 1 and not direct
        if (scale.shape[0] + shift.shape[0] + residual.shape[0] > 0 or act != NONE) and not narrow:
            finish(y, y.shape[3], row0, rows, k0, k1, scale, scale.shape[0], shift, shift.shape[0],
                   residual, residual.shape[0], act)  # fmt: skip
        if mask.shape[1] > 0:
            activation_bits(mask, mask.shape[1], y, pixels, y.shape[3], n0, n1, first, last, k0, k1, act)


@inline
def _multiply(
    y, x, origin, sides, w, own, to, row0, rows, k0, k1, geometry, tap_rows, tap_columns, direct, add
):  # fmt: skip
    """Rows `row0 : row0 + rows` and channels `k0 : k1` of the bare convolution of the map x, into y.

    origin, sides: the element where sample 0 begins in x; its rows, columns and channels. own[to:]: where taps are
    gathered, tap_rows × tap_columns of the kernel w at once. direct: read x in place. add: to the old y.
    """
    depth, width, total = w.shape[2], w.shape[3], sides[2]
    groups = total // depth
    per_group = width // groups
    for r0 in range(0, w.shape[0], tap_rows):
        r1 = min(r0 + tap_rows, w.shape[0])
        for s0 in range(0, w.shape[1], tap_columns):
            s1 = min(s0 + tap_columns, w.shape[1])
            span = (r1 - r0) * (s1 - s0) * depth
            more = add or r0 + s0 > 0
            w0 = (r0 * w.shape[1] + s0) * depth * width
            for g in range(groups):
                left = k0 if groups == 1 else g * per_group
                n = k1 - k0 if groups == 1 else per_group
                out = row0 * width + left
                if direct:
                    a0 = origin + row0 * total + g * depth
                    product(rows, n, depth, x, a0, total, 1, w, left, width, 1, add, y, out, width)
                else:
                    gather(own, to, x, origin, sides, row0, rows, y.shape[1], y.shape[2], r0, r1, s0, s1,
                           g * depth, depth, geometry)  # fmt: skip
                    product(rows, n, span, own, to, span, 1, w, w0 + left, width, 1, more, y, out, width)


@inline
def _multiply_one_channel(y, x, w, own, row0, rows, k0, k1, geometry, tap_rows, tap_columns):
    """As `_multiply` for C = 1: the tile is gathered one row per tap, where neighbouring pixels lie side by side."""
    width = w.shape[3]
    narrow = width < NARROW
    aside = tap_rows * tap_columns * rows  # the transposed tile (K, rows) lies after the taps
    for r0 in range(0, w.shape[0], tap_rows):
        r1 = min(r0 + tap_rows, w.shape[0])
        for s0 in range(0, w.shape[1], tap_columns):
            s1 = min(s0 + tap_columns, w.shape[1])
            span = (r1 - r0) * (s1 - s0)
            more = r0 + s0 > 0
            w0 = (r0 * w.shape[1] + s0) * width
            gather_taps(own, 0, x, x.shape[1], x.shape[2], row0, rows, y.shape[1], y.shape[2], r0, r1, s0, s1, geometry)
            if narrow:
                product(width, rows, span, w, w0, 1, width, own, 0, rows, 1, more, own, aside, rows)
            else:
                product(rows, k1 - k0, span, own, 0, 1, rows, w, w0 + k0, width, 1, more, y, row0 * width + k0, width)


# ---- grad_x


def grad_x_executes(dx, dy, mask, scale, w, turned, scratch, geometry, tiles, add) -> Ops:
    """Products of a tile; dy through its scale, again for each tile that reads it; sums where products are scattered.

    Pixels at the borders of tiles are multiplied for both neighbours.
    """
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    samples, part, channels, piece, tap_rows, tap_columns = tiles
    direct, gathers = reads_in_place.py_func(w, dy, dx, geometry), turned.shape[0] > 0
    size, (_, high, wide, total) = dx.dtype.itemsize, dx.shape
    r, s, depth, width = w.shape
    groups, per_group = total // depth, width // (total // depth)
    height, across = dy.shape[1:3]
    length = high * wide if gathers or direct else high
    weigh, executed = MUL * (width * bool(scale.size)), NOTHING
    for together, i in pieces(dx.shape[0], samples):
        for first in range(0, length, part):
            last = min(first + part, length)
            out = (together - 1) * length + last - first
            h0, h1 = (first // wide, (last - 1) // wide + 1) if gathers else (first, last)
            p0 = min(max(0, ceil_div(h0 + top - dilation_h * (r - 1), stride_h)), height)
            p1 = max(min(height, (h1 - 1 + top) // stride_h + 1), p0)
            read = out if direct else ((together - 1) * height + p1 - p0) * across
            for c, j in pieces(total, channels):
                own = weigh * read
                n = c if groups == 1 else depth
                if direct:
                    own += product_executes(out, n, per_group, size) * groups
                elif gathers:
                    own += product_executes(out, n, r * s * per_group, size) * groups
                else:
                    for rows, k in pieces(read, piece):
                        for taps_h, l in pieces(r, tap_rows):
                            for taps_w, m in pieces(s, tap_columns):
                                span = taps_h * taps_w * min(depth, c)
                                own += product_executes(rows, span, per_group, size) * (groups * k * l * m)
                executed += own * (i * j)
    if not (direct or gathers):
        pad_h, pad_w = (top, 0), (left, 0)
        lines = int(inside(high, r, height, stride_h, dilation_h, pad_h).sum()) * dx.shape[0]
        under = inside(wide, s, across, stride_w, dilation_w, pad_w)
        for c, j in pieces(total, channels):
            deep = min(depth, c)
            if dilation_w == 1 and deep == total:  # taps side by side are added at once
                runs = (under[:, i : i + tap_columns].sum(1) for i in range(0, s, tap_columns))
                moves = sum(moved(int(n) * deep, size) for run in runs for n in run)
            else:
                moves = int(under.sum()) * moved(deep, size)
            executed += ADD * (lines * moves * groups * j)
    return executed


@executes(grad_x_executes)
@TileKernel
def grad_x(dx, dy, mask, scale, w, turned, scratch, geometry, tiles, add):
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, K), through `mask` and `scale`, and w, (R, S, C/G, K).

    A 1×1 convolution read in place is one product. Where `turned` (R, S, K/G, C) is not empty, it is filled with the
    kernel turned by 180° and its channels exchanged, and dx is the convolution of dy with it (stride 1). Else a tile
    owns rows of dx, and the products of dy with the transposed kernel are added to them. `add`: dx += instead of dx =.
    scratch (threads, s), geometry and tiles: of `tiles.grad_x_scratch`, `tiles.geometry` and `tiles.grad_x_tiles`.
    """
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    samples, part, channels, piece, tap_rows, tap_columns = tiles
    direct = reads_in_place(w, dy, dx, geometry)
    gathers = turned.shape[0] > 0
    height, across, total = dy.shape[1], dy.shape[2], dx.shape[3]
    depth, width = w.shape[2], w.shape[3]
    groups = total // depth
    per_group = width // groups
    window = w.shape[0] * w.shape[1]
    if gathers:
        strips = up(depth, STRIP)
        for t in prange(window * groups * strips):
            item = np.int64(t)
            c0 = item % strips * STRIP
            g = item // strips % groups
            tap = item // strips // groups
            to = ((window - 1 - tap) * per_group * groups + g) * depth + c0
            source = (tap * depth + c0) * width + g * per_group
            turn(turned, to, total, w, source, width, min(STRIP, depth - c0), per_group)

    back = (1, 1, dilation_h, dilation_w, dilation_h * (w.shape[0] - 1) - top, dilation_w * (w.shape[1] - 1) - left)
    sides = (height, across, width)
    staged = mask.shape[1] + scale.shape[0] > 0
    by_pixels = gathers or direct
    length = dx.shape[1] * dx.shape[2] if by_pixels else dx.shape[1]  # a tile is a part of this
    parts, blocks = up(length, part), up(total, channels)
    reach = dilation_h * (w.shape[0] - 1)
    for t in prange(up(dx.shape[0], samples) * parts * blocks):
        item = np.int64(t)
        c0 = item % blocks * channels
        c1 = min(c0 + channels, total)
        n0 = item // blocks // parts * samples
        n1 = min(n0 + samples, dx.shape[0])
        first = item // blocks % parts * part
        last = min(first + part, length)
        own = scratch[get_thread_id()]
        if direct:
            row0 = n0 * length + first
            rows = (n1 - n0 - 1) * length + last - first
            _pointwise_grad_x(dx, dy, mask, scale, w, own, row0, rows, c0, c1, add)
            continue
        # map rows of this tile, the rows p of dy that reach them, and the pixels of dy in those
        h0 = first // dx.shape[2] if gathers else first
        h1 = (last - 1) // dx.shape[2] + 1 if gathers else last
        p0 = min(max(0, up(h0 + top - reach, stride_h)), height)
        p1 = max(min(height, (h1 - 1 + top) // stride_h + 1), p0)
        row0 = (n0 * height + p0) * across
        end = ((n1 - 1) * height + p1) * across
        if gathers:
            out0 = n0 * length + first
            out = (n1 - n0 - 1) * length + last - first
            if staged:
                read_dy(own, 0, dy, row0, end - row0, mask, scale)
                _multiply(dx, own, -row0 * width, sides, turned, own, piece * width, out0, out,
                          c0, c1, back, tap_rows, tap_columns, False, add)  # fmt: skip
            else:
                _multiply(dx, dy, 0, sides, turned, own, 0, out0, out,
                          c0, c1, back, tap_rows, tap_columns, False, add)  # fmt: skip
            continue
        if not add:
            _clear_part(dx, n0, n1, first, last, c0, c1)
        while row0 < end:
            rows = min(piece, end - row0)
            _products_to_dx(
                dx, dy, mask, scale, w, own, row0, rows, first, last, c0, c1, piece, tap_rows, tap_columns, geometry
            )
            row0 += rows


@inline
def read_dy(own, to, dy, row0, rows, mask, scale):
    """Fill own[to:] (rows, K) with dy_eff of the pixels from row0 on."""
    dy_tile(own, to, dy, dy.shape[1] * dy.shape[2], dy.shape[3], row0, rows, mask, mask.shape[1], scale, scale.shape[0])


@inline
def _pointwise_grad_x(dx, dy, mask, scale, w, own, row0, rows, c0, c1, add):
    """The rows `row0 : row0 + rows` and channels `c0 : c1` of dx for a convolution that reads x in place."""
    depth, width, total = w.shape[2], w.shape[3], dx.shape[3]
    groups = total // depth
    per_group = width // groups
    a, a0 = dy.reshape(-1), row0 * width
    if mask.shape[1] + scale.shape[0] > 0:
        read_dy(own, 0, dy, row0, rows, mask, scale)
        a, a0 = own, 0
    for g in range(groups):
        n = c1 - c0 if groups == 1 else depth
        b0 = c0 * width if groups == 1 else g * per_group
        out = row0 * total + (c0 if groups == 1 else g * depth)
        product(rows, n, per_group, a, a0 + g * per_group, width, 1, w, b0, 1, width, add, dx, out, total)


@inline
def _clear_part(dx, n0, n1, h0, h1, c0, c1):
    """Zero the map rows `h0 : h1` and channels `c0 : c1` of dx."""
    high, wide, total = dx.shape[1], dx.shape[2], dx.shape[3]
    for n in range(n0, n1):
        if c1 - c0 == total:
            clear(dx, (n * high + h0) * wide * total, (h1 - h0) * wide * total)
        else:
            for pixel in range((n * high + h0) * wide, (n * high + h1) * wide):
                clear(dx, pixel * total + c0, c1 - c0)


@inline
def _products_to_dx(
    dx, dy, mask, scale, w, own, row0, rows, h0, h1, c0, c1, piece, tap_rows, tap_columns, geometry
):  # fmt: skip
    """Add what the pixels `row0 : row0 + rows` of dy give to map rows `h0 : h1` and channels `c0 : c1` of dx.

    dy is read through mask and scale. own: room for `piece` pixels of it and, after them, for the products of
    tap_rows × tap_columns of the kernel w at once.
    """
    depth, width = w.shape[2], w.shape[3]
    groups = dx.shape[3] // depth
    per_group = width // groups
    products = piece * width
    a, a0 = dy.reshape(-1), row0 * width
    if mask.shape[1] + scale.shape[0] > 0:
        read_dy(own, 0, dy, row0, rows, mask, scale)
        a, a0 = own, 0
    part = min(depth, c1 - c0)
    for r0 in range(0, w.shape[0], tap_rows):
        r1 = min(r0 + tap_rows, w.shape[0])
        for s0 in range(0, w.shape[1], tap_columns):
            s1 = min(s0 + tap_columns, w.shape[1])
            span = (r1 - r0) * (s1 - s0) * part  # several taps only where all channels are in this tile
            for g in range(groups):
                b0 = ((r0 * w.shape[1] + s0) * depth + c0) * width + g * per_group
                product(rows, span, per_group, a, a0 + g * per_group, width, 1, w, b0, 1, width, False,
                        own, products, span)  # fmt: skip
                scatter(dx, dx.shape[1], dx.shape[2], dx.shape[3], own, products, row0, rows, dy.shape[1], dy.shape[2],
                        h0, h1, r0, r1, s0, s1, g * depth + c0, part, geometry)  # fmt: skip


# ---- grad_w and grad_b


def grad_w_executes(dw, dy, mask, scale, x, scratch, partials, geometry, tiles) -> Ops:
    """The products of gathered tiles; dy through its scale, again for each part of dw; the sum of the slices."""
    per_slice, _, tap_rows, tap_columns, channels = tiles
    pixels = dy.shape[0] * dy.shape[1] * dy.shape[2]
    r, s, depth, width = dw.shape
    groups = x.shape[3] // depth
    total = ADD * ((ceil_div(pixels, per_slice) - 1) * dw.size)
    for taps_h, i in pieces(r, tap_rows):
        for taps_w, j in pieces(s, tap_columns):
            for c, k in pieces(depth, channels):
                own = product_executes(taps_h * taps_w * c, width // groups, pixels, dw.dtype.itemsize) * groups
                total += (own + MUL * (dy.size * bool(scale.size))) * (i * j * k)
    return total


@executes(grad_w_executes)
@TileKernel
def grad_w(dw, dy, mask, scale, x, scratch, partials, geometry, tiles):
    """Gradient of w, (R, S, C/G, K), from dy, (N, P, Q, K), through `mask` and `scale`, and x, (N, H, W, C).

    scratch (threads, s), partials, geometry and tiles: of `tiles.grad_w_scratch`, `tiles.grad_w_partials`,
    `tiles.geometry` and `tiles.grad_w_tiles`.
    """
    per_slice, part, tap_rows, tap_columns, channels = tiles
    direct = reads_in_place(dw, dy, x, geometry)
    pixels = dy.shape[0] * dy.shape[1] * dy.shape[2]
    depth = dw.shape[2]
    slices = up(pixels, per_slice)
    down, along, blocks = up(dw.shape[0], tap_rows), up(dw.shape[1], tap_columns), up(depth, channels)
    pieces = down * along * blocks
    for t in prange(slices * pieces):
        item = np.int64(t)
        c0 = item % blocks * channels
        s0 = item // blocks % along * tap_columns
        r0 = item // blocks // along % down * tap_rows
        c1, s1, r1 = min(c0 + channels, depth), min(s0 + tap_columns, dw.shape[1]), min(r0 + tap_rows, dw.shape[0])
        start = item // pieces * per_slice
        end = min(start + per_slice, pixels)
        own = scratch[get_thread_id()]
        if slices > 1:
            _sum_products(partials.reshape(-1), item // pieces * dw.size, dw, dy, mask, scale, x, own, start, end, part,
                          r0, r1, s0, s1, c0, c1, direct, geometry)  # fmt: skip
        else:
            _sum_products(dw.reshape(-1), 0, dw, dy, mask, scale, x, own, start, end, part,
                          r0, r1, s0, s1, c0, c1, direct, geometry)  # fmt: skip
    if slices > 1:
        add_partials(dw.reshape(-1), partials, slices)


@inline
def _sum_products(
    out, out0, dw, dy, mask, scale, x, own, start, end, part, r0, r1, s0, s1, c0, c1, direct, geometry
):  # fmt: skip
    """Part of dw, at out[out0:], of the pixels `start : end`: taps `r0 : r1`, `s0 : s1`, channels `c0 : c1`.

    dw tells its shape only. dy is read through mask and scale, `part` pixels at a time, into own, and after them the
    taps of x are gathered, or x is read in place where direct.
    """
    depth, width, total = dw.shape[2], dw.shape[3], x.shape[3]
    groups = total // depth
    per_group = width // groups
    staged = mask.shape[1] + scale.shape[0] > 0
    span = (r1 - r0) * (s1 - s0) * (c1 - c0)
    taps = part * width if staged else 0  # the gathered taps lie after the tile of dy
    to = out0 + ((r0 * dw.shape[1] + s0) * depth + c0) * width
    sides = (x.shape[1], x.shape[2], total)
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    for row0 in range(start, end, part):
        rows = min(part, end - row0)
        more = row0 > start
        b, b0 = flat_dy, row0 * width
        if staged:
            read_dy(own, 0, dy, row0, rows, mask, scale)
            b, b0 = own, 0
        for g in range(groups):
            channel = g * depth + c0
            if direct:
                a, a0, a_row, a_k = flat_x, row0 * total + channel, 1, total
            elif total == 1:
                gather_taps(
                    own, taps, x, x.shape[1], x.shape[2], row0, rows, dy.shape[1], dy.shape[2], r0, r1, s0, s1, geometry
                )
                a, a0, a_row, a_k = own, taps, rows, 1
            else:
                gather(own, taps, x, 0, sides, row0, rows, dy.shape[1], dy.shape[2], r0, r1, s0, s1, channel, c1 - c0,
                       geometry)  # fmt: skip
                a, a0, a_row, a_k = own, taps, 1, span
            product(span, per_group, rows, a, a0, a_row, a_k, b, b0 + g * per_group, width, 1, more,
                    out, to + g * per_group, width)  # fmt: skip


@inline
def add_partials(out, partials, slices):
    """out[i] = Σ partials[slice, i], in the order of the slices."""
    for i in range(out.shape[0]):
        out[i] = partials[0, i]
    for s in range(1, slices):
        for i in range(out.shape[0]):
            out[i] += partials[s, i]


def grad_b_executes(db, dy, mask, scale, partials) -> Ops:
    """A sum by slices of samples, weighed, and the sum of the slices."""
    slices = ceil_div(dy.shape[0], ceil_div(dy.shape[0], partials.shape[0]))
    return ADD * (dy.size + (slices - 1) * db.size) + MUL * (slices * db.size * bool(scale.size))


@executes(grad_b_executes)
@TileKernel
def grad_b(db, dy, mask, scale, partials):
    """Gradient of b, (K,): Σ_{n,p,q} dy_eff, from dy, (N, P, Q, K), through `mask` and `scale`."""
    samples = up(dy.shape[0], partials.shape[0])
    slices = up(dy.shape[0], samples)
    pixels, width = dy.shape[1] * dy.shape[2], dy.shape[3]
    flat = dy.reshape(-1)
    for t in prange(slices):
        item = np.int64(t)
        for k in range(width):
            partials[item, k] = 0
        for n in range(item * samples, min(item * samples + samples, dy.shape[0])):
            for pixel in range(pixels):
                start = (n * pixels + pixel) * width
                if mask.shape[1] == 0:
                    for k in range(width):
                        partials[item, k] += flat[start + k]
                else:
                    for k in range(width):
                        e = pixel * width + k
                        if mask[n, e // 8] >> (e % 8) & 1:
                            partials[item, k] += flat[start + k]
        if scale.shape[0] > 0:
            for k in range(width):
                partials[item, k] *= scale[k]
    add_partials(db, partials, slices)
