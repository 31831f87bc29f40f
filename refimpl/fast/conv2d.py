"""Convolution on tiles of output pixels: gather the taps of a tile (im2col), multiply, finish it while it is in cache.

A 1×1 convolution with stride 1 reads its input in place. A pixel is one (n, p, q); pixels are numbered in this order,
so a tile of them is a block of consecutive rows of y seen as (N·P·Q, K). Gradients read dy through the mask and scale
of what followed the convolution: dy_eff = dy·scale where the mask's bit is set, else 0; either may be absent (empty).
Letters as in `ops.conv2d`. Masks are `uint8 (N, B)`, B = ⌈P·Q·K / 8⌉, laid out as `fast.memory` says. Arrays are
C-contiguous. No kernel allocates; scratch comes from the caller, its shape, like the tiling, from `fast.tiles`.
"""

import numpy as np
from numba import get_thread_id, prange

from ..gemm import gemm
from ..kernel import fast, inline
from .gather import dy_tile, gather, gather_taps, scatter, up
from .memory import clear, write_bits
from .tiles import NARROW

NONE, RELU, RELU6 = 0, 1, 2


# ---- forward


@fast
def forward(y, mask, x, w, scale, shift, residual, scratch, geometry, tiles, act):
    """Y = act(scale·conv(x, w) + shift + residual) and, where `mask` is not empty, the bits of the activation.

    y (N, P, Q, K), mask (N, B), x (N, H, W, C), w (R, S, C/G, K), scale and shift (K,), residual (N, P, Q, K): mask,
    scale, shift and residual may be empty. act: NONE, RELU or RELU6; a bit tells 0 < y (and y < 6 for RELU6).
    """
    samples, part, channels, tap_rows, tap_columns = tiles
    stride_h, stride_w, _, _, top, left = geometry
    direct = w.shape[0] * w.shape[1] * stride_h * stride_w == 1 and y.shape[1:3] == x.shape[1:3] and top + left == 0
    pixels = y.shape[1] * y.shape[2]
    parts = up(pixels, part)
    blocks = up(y.shape[3], channels)
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
        else:
            _multiply(y, x, w, own, row0, rows, k0, k1, geometry, tap_rows, tap_columns, direct)
        _finish(y, row0, rows, k0, k1, scale, shift, residual, act)
        if mask.shape[1] > 0:
            low, high = y.dtype.type(0), y.dtype.type(6 if act == RELU6 else np.nan)
            width = y.shape[3]
            if k1 - k0 == width:
                for n in range(n0, n1):
                    start = n * pixels + first
                    byte = n * mask.shape[1] + first * width // 8
                    write_bits(mask, byte, y, start * width, (last - first) * width, low, high)
            else:  # parts of the channels are multiples of 16, so each pixel's bits are whole bytes
                for n in range(n0, n1):
                    for pixel in range(first, last):
                        byte = n * mask.shape[1] + (pixel * width + k0) // 8
                        write_bits(mask, byte, y, (n * pixels + pixel) * width + k0, k1 - k0, low, high)


@inline
def _multiply(y, x, w, own, row0, rows, k0, k1, geometry, tap_rows, tap_columns, direct):
    """Rows `row0 : row0 + rows` and channels `k0 : k1` of the bare convolution, into y."""
    depth, width, total = w.shape[2], w.shape[3], x.shape[3]
    if direct and depth == total:
        gemm(False, False, rows, k1 - k0, total, 1.0, x, row0 * total, total, w, k0, width, 0.0, y,
             row0 * width + k0, width)  # fmt: skip
        return
    groups = total // depth
    per_group = width // groups
    for r0 in range(0, w.shape[0], tap_rows):
        r1 = min(r0 + tap_rows, w.shape[0])
        for s0 in range(0, w.shape[1], tap_columns):
            s1 = min(s0 + tap_columns, w.shape[1])
            span = (r1 - r0) * (s1 - s0) * depth
            beta = 0.0 if r0 + s0 == 0 else 1.0
            w0 = (r0 * w.shape[1] + s0) * depth * width
            for g in range(groups):
                left, right = (k0, k1) if groups == 1 else (g * per_group, (g + 1) * per_group)
                if direct:
                    gemm(False, False, rows, right - left, depth, 1.0, x, row0 * total + g * depth, total,
                         w, left, width, 0.0, y, row0 * width + left, width)  # fmt: skip
                else:
                    gather(own, x, row0, rows, y.shape[1], y.shape[2], r0, r1, s0, s1, g * depth, depth, geometry)
                    gemm(False, False, rows, right - left, span, 1.0, own, 0, span, w, w0 + left, width, beta,
                         y, row0 * width + left, width)  # fmt: skip


@inline
def _multiply_one_channel(y, x, w, own, row0, rows, k0, k1, geometry, tap_rows, tap_columns):
    """As `_multiply` for C = 1: the tile is gathered one row per tap, where neighbouring pixels lie side by side."""
    width = w.shape[3]
    narrow = width < NARROW
    product = tap_rows * tap_columns * rows  # the transposed tile (K, rows) lies after the taps
    for r0 in range(0, w.shape[0], tap_rows):
        r1 = min(r0 + tap_rows, w.shape[0])
        for s0 in range(0, w.shape[1], tap_columns):
            s1 = min(s0 + tap_columns, w.shape[1])
            span = (r1 - r0) * (s1 - s0)
            beta = 0.0 if r0 + s0 == 0 else 1.0
            w0 = (r0 * w.shape[1] + s0) * width
            gather_taps(own, x, row0, rows, y.shape[1], y.shape[2], r0, r1, s0, s1, geometry)
            if narrow:
                gemm(True, False, width, rows, span, 1.0, w, w0, width, own, 0, rows, beta, own, product, rows)
            else:
                gemm(True, False, rows, k1 - k0, span, 1.0, own, 0, rows, w, w0 + k0, width, beta,
                     y, row0 * width + k0, width)  # fmt: skip
    if narrow:
        flat = y.reshape(-1)
        for i in range(rows):
            for k in range(width):
                flat[(row0 + i) * width + k] = own[product + k * rows + i]


@inline
def _finish(y, row0, rows, k0, k1, scale, shift, residual, act):
    """act(scale·y + shift + residual) on a tile of y, in place."""
    if scale.shape[0] + shift.shape[0] + residual.shape[0] == 0 and act == NONE:
        return
    flat, width = y.reshape(-1), y.shape[3]
    other = residual.reshape(-1)
    zero, six = y.dtype.type(0), y.dtype.type(6)
    for row in range(row0, row0 + rows):
        if scale.shape[0] > 0:
            for k in range(k0, k1):
                flat[row * width + k] *= scale[k]
        if shift.shape[0] > 0:
            for k in range(k0, k1):
                flat[row * width + k] += shift[k]
        if residual.shape[0] > 0:
            for k in range(row * width + k0, row * width + k1):
                flat[k] += other[k]
        if act != NONE:
            for k in range(row * width + k0, row * width + k1):
                v = flat[k]
                flat[k] = zero if v < zero else v  # in this form NaN passes
        if act == RELU6:
            for k in range(row * width + k0, row * width + k1):
                v = flat[k]
                flat[k] = six if v > six else v


# ---- grad_x


@fast
def grad_x(dx, dy, mask, scale, w, scratch, geometry, tiles, add):
    """Dx (N, H, W, C) of dy (N, P, Q, K) through `mask` and `scale`, w (R, S, C/G, K); `add`: dx += instead of dx =."""
    samples, part, channels, piece, tap_rows, tap_columns = tiles
    stride_h, stride_w, dilation_h, _, top, left = geometry
    direct = w.shape[0] * w.shape[1] * stride_h * stride_w == 1 and dy.shape[1:3] == dx.shape[1:3] and top + left == 0
    height, across, total = dy.shape[1], dy.shape[2], dx.shape[3]
    length = height * across if direct else dx.shape[1]  # a tile is a part of this
    parts = up(length, part)
    blocks = up(total, channels)
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
            _pointwise_grad_x(
                dx, dy, mask, scale, w, own, row0, (n1 - n0 - 1) * length + last - first, c0, c1, 1.0 if add else 0.0
            )
        else:
            if not add:
                if c1 - c0 == total:
                    line = dx.shape[2] * total
                    clear(dx, (n0 * length + first) * line, ((n1 - n0 - 1) * length + last - first) * line)
                else:
                    for n in range(n0, n1):
                        for h in range(first, last):
                            for v in range(dx.shape[2]):
                                clear(dx, ((n * length + h) * dx.shape[2] + v) * total + c0, c1 - c0)
            p0 = min(max(0, up(first + top - reach, stride_h)), height)
            p1 = max(min(height, (last - 1 + top) // stride_h + 1), p0)
            row0 = (n0 * height + p0) * across
            end = ((n1 - 1) * height + p1) * across
            while row0 < end:
                rows = min(piece, end - row0)
                _products_to_dx(
                    dx, dy, mask, scale, w, own, row0, rows, first, last, c0, c1, piece, tap_rows, tap_columns, geometry
                )
                row0 += rows


@inline
def _pointwise_grad_x(dx, dy, mask, scale, w, own, row0, rows, c0, c1, beta):
    """The rows `row0 : row0 + rows` and channels `c0 : c1` of dx for a convolution that reads x in place."""
    depth, width, total = w.shape[2], w.shape[3], dx.shape[3]
    per_group = width * depth // total
    staged = mask.shape[1] + scale.shape[0] > 0
    if staged:
        dy_tile(own, 0, dy, row0, rows, mask, scale)
    for g in range(total // depth):
        left, right = (c0, c1) if depth == total else (g * depth, (g + 1) * depth)
        w0 = (left - g * depth) * width + g * per_group
        if staged:
            gemm(False, True, rows, right - left, per_group, 1.0, own, g * per_group, width, w, w0, width, beta,
                 dx, row0 * total + left, total)  # fmt: skip
        else:
            gemm(False, True, rows, right - left, per_group, 1.0, dy, row0 * width + g * per_group, width, w, w0, width,
                 beta, dx, row0 * total + left, total)  # fmt: skip


@inline
def _products_to_dx(
    dx, dy, mask, scale, w, own, row0, rows, h0, h1, c0, c1, piece, tap_rows, tap_columns, geometry
):  # fmt: skip
    """Add what the pixels `row0 : row0 + rows` of dy give to map rows `h0 : h1` and channels `c0 : c1` of dx."""
    depth, width, total = w.shape[2], w.shape[3], dx.shape[3]
    groups = total // depth
    per_group = width // groups
    staged = mask.shape[1] + scale.shape[0] > 0
    products = piece * width
    if staged:
        dy_tile(own, 0, dy, row0, rows, mask, scale)
    part = min(depth, c1 - c0)
    for r0 in range(0, w.shape[0], tap_rows):
        r1 = min(r0 + tap_rows, w.shape[0])
        for s0 in range(0, w.shape[1], tap_columns):
            s1 = min(s0 + tap_columns, w.shape[1])
            span = (r1 - r0) * (s1 - s0) * part  # several taps only where all channels are in this tile
            for g in range(groups):
                w0 = ((r0 * w.shape[1] + s0) * depth + c0) * width + g * per_group
                if staged:
                    gemm(False, True, rows, span, per_group, 1.0, own, g * per_group, width, w, w0, width, 0.0,
                         own, products, span)  # fmt: skip
                else:
                    gemm(False, True, rows, span, per_group, 1.0, dy, row0 * width + g * per_group, width, w, w0, width,
                         0.0, own, products, span)  # fmt: skip
                scatter(dx, own[products:], row0, rows, dy.shape[1], dy.shape[2], h0, h1, r0, r1, s0, s1,
                        g * depth, part, c0, geometry)  # fmt: skip


# ---- grad_w and grad_b


@fast
def grad_w(dw, dy, mask, scale, x, scratch, partials, geometry, tiles):
    """Dw (R, S, C/G, K) of dy (N, P, Q, K) through `mask` and `scale`, x (N, H, W, C)."""
    per_slice, part, tap_rows, tap_columns, channels = tiles
    stride_h, stride_w, _, _, top, left = geometry
    direct = dw.shape[0] * dw.shape[1] * stride_h * stride_w == 1 and dy.shape[1:3] == x.shape[1:3] and top + left == 0
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
            _sum_products(partials, item // pieces * dw.size, dw, dy, mask, scale, x, own, start, end, part,
                          r0, r1, s0, s1, c0, c1, direct, geometry)  # fmt: skip
        else:
            _sum_products(dw, 0, dw, dy, mask, scale, x, own, start, end, part,
                          r0, r1, s0, s1, c0, c1, direct, geometry)  # fmt: skip
    if slices > 1:
        add_partials(dw.reshape(-1), partials, slices)


@inline
def _sum_products(
    out, out0, dw, dy, mask, scale, x, own, start, end, part, r0, r1, s0, s1, c0, c1, direct, geometry
):  # fmt: skip
    """Part of dw, at out[out0:], of the pixels `start : end`: taps `r0 : r1`, `s0 : s1`, channels `c0 : c1`."""
    depth, width, total = dw.shape[2], dw.shape[3], x.shape[3]
    groups = total // depth
    per_group = width // groups
    staged = mask.shape[1] + scale.shape[0] > 0
    span = (r1 - r0) * (s1 - s0) * (c1 - c0)
    gathered = part * width  # the taps lie after the tile of dy
    to = out0 + ((r0 * dw.shape[1] + s0) * depth + c0) * width
    for row0 in range(start, end, part):
        rows = min(part, end - row0)
        beta = 0.0 if row0 == start else 1.0
        if staged:
            dy_tile(own, 0, dy, row0, rows, mask, scale)
        for g in range(groups):
            channel = g * depth + c0
            if direct:
                a, a0, lda = x.reshape(-1), row0 * total + channel, total
            else:
                gather(own[gathered:], x, row0, rows, dy.shape[1], dy.shape[2], r0, r1, s0, s1, channel, c1 - c0,
                       geometry)  # fmt: skip
                a, a0, lda = own, gathered, span
            if staged:
                gemm(True, False, span, per_group, rows, 1.0, a, a0, lda, own, g * per_group, width, beta,
                     out, to + g * per_group, width)  # fmt: skip
            else:
                gemm(True, False, span, per_group, rows, 1.0, a, a0, lda, dy, row0 * width + g * per_group, width, beta,
                     out, to + g * per_group, width)  # fmt: skip


@inline
def add_partials(out, partials, slices):
    """out[i] = Σ partials[slice, i], in the order of the slices."""
    for i in range(out.shape[0]):
        out[i] = partials[0, i]
    for s in range(1, slices):
        for i in range(out.shape[0]):
            out[i] += partials[s, i]


@fast
def grad_b(db, dy, mask, scale, partials):
    """Db (K,) = Σ_{n,p,q} dy_eff, dy (N, P, Q, K) through `mask` and `scale`."""
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
