"""Depthwise convolution on the CPU, reading its input through the batch norm and activation that come before it.

The map between two convolutions is never stored normalised: a kernel reads the raw output x of the convolution before
as x̂ = act(a·x + b), with `affine` (2, C) holding a and b per channel, and sums its own raw output y for the batch
norm after it. Backward reads ∂L/∂y as A·dz + B·y + C, with `coef` (3, C) and dz the gradient behind the batch norm,
already zero where the activation is flat (`backends.cpu.batch_norm` computes both tables), and leaves its dx in the
same form, with the two sums that the norm before it needs.

One item is a range of channels of a slice of the batch. It walks down the map with the last few rows in a small ring
of scratch: rows already transformed, in blocks of LANES channels, with zeros where padding is, so that no inner loop
has a bounds check. Slices follow from shapes alone, so the sums have the same bits for any number of threads.

    y[n,p,q,c] = Σ_{r,s} x̂[n, p·stride − top + r·dilation, q·stride − left + s·dilation, c]·w[r,s,0,c]
"""

import numpy as np
from numba import get_thread_id, prange

from ...compiler.executed import ADD, MAC, NOTHING, Ops, executes
from ...kernels.kernel import fast, inline
from .rows import bounds, clear, lanes, read_gradient_executes, read_gradient_row, read_row, read_row_executes
from .simd import LANES, accumulate, address, clamp, given, keep, load, prefetch, prefetch_write, splat, store

MAX_SLICES = 8  # slices of the batch, each with partial sums of its own
RING_BYTES = 400 * 1024  # rows of one item that stay in the second-level cache
MIN_ITEMS = 4  # enough for the threads of small boards


def slices(n: int) -> int:
    """Number of slices into which a batch of n is cut: the first axis of every array of partial sums."""
    return min(n, MAX_SLICES)


def blocks_per_item(channels: int, n: int, block_bytes: int) -> int:
    """Blocks of LANES channels of one item: they fit into the cache, and there are items enough."""
    blocks = (channels + LANES - 1) // LANES
    return max(1, min(blocks, RING_BYTES // block_bytes, blocks * min(n, MAX_SLICES) // MIN_ITEMS))


def forward_ring(width: int, out: int, taps: tuple, stride: int, dilation: tuple, left: int) -> tuple[int, int]:
    """(rows, padded columns) that forward keeps of x (columns `width`, `out` windows)."""
    return (taps[0] - 1) * dilation[0] + 1, max(left + width, (out - 1) * stride + (taps[1] - 1) * dilation[1] + 1)


def backward_ring(width: int, out: int, taps: tuple, stride: tuple, dilation: tuple, left: int) -> tuple[int, int]:
    """(rows, padded columns) that backward keeps of dy, its columns spread by the stride with zeros between."""
    before = max(0, (taps[1] - 1) * dilation[1] - left)
    return (taps[0] - 1) * dilation[0] // stride[0] + 1, before + max((out - 1) * stride[1] + 1, left + width)


_slices = inline(slices)
_blocks_per_item = inline(blocks_per_item)
_forward_ring = inline(forward_ring)
_backward_ring = inline(backward_ring)


def forward_scratch(x: tuple, w: tuple, y: tuple, itemsize: int, stride, dilation, pad) -> int:
    """Elements of scratch that forward needs per thread, for shapes x (N, H, W, C), w (R, S, 1, C), y (N, P, Q, C)."""
    rows, columns = forward_ring(x[2], y[2], w[:2], stride[1], dilation, pad[1][0])
    block = (rows + 1) * columns * LANES
    return block * blocks_per_item(x[3], x[0], block * itemsize)


def backward_scratch(x: tuple, w: tuple, y: tuple, itemsize: int, stride, dilation, pad) -> int:
    """Elements of scratch that backward needs per thread, for shapes x (N, H, W, C), w (R, S, 1, C), y (N, P, Q, C)."""
    rows, columns = backward_ring(x[2], y[2], w[:2], stride, dilation, pad[1][0])
    block = ((rows + 1) * columns + w[0] * w[1]) * LANES
    return block * blocks_per_item(x[3], x[0], block * itemsize)


@inline
def after(like, post, c, m):
    """Factor, term and range of what is done to y, for m channels from c on; post: (scale, shift, activation)."""
    scale, shift, act = post
    a, b = splat(like, 1.0), splat(like, 0.0)
    if given(scale):
        a = load(scale, c, m)
    if given(shift):
        b = load(shift, c, m)
    lo, hi = bounds(like, act)
    return a, b, lo, hi


@inline
def forward_row_3x3(y, i, columns, channels, m, ring, rows, step, d, w, c, sums, at, post):
    """One row of y, from element i on: nine weights and two sums in registers.

    columns, channels: of y; m: how many channels are worked on, c: the first of them. rows: where the three rows of x̂
    are in the ring; step, d: elements of the ring from one window and from one tap to the next. sums: where they go, at
    `at`; post: what is done to y (`after`).
    """
    o0, o1, o2 = rows
    w00, w01, w02 = load(w, c, m), load(w, channels + c, m), load(w, 2 * channels + c, m)
    w10, w11, w12 = load(w, 3 * channels + c, m), load(w, 4 * channels + c, m), load(w, 5 * channels + c, m)
    w20, w21, w22 = load(w, 6 * channels + c, m), load(w, 7 * channels + c, m), load(w, 8 * channels + c, m)
    a, b, lo, hi = after(y, post, c, m)
    total, squares = splat(y, 0.0), splat(y, 0.0)
    for q in range(columns):
        j = q * step
        v = load(ring, o0 + j, LANES) * w00 + load(ring, o0 + j + d, LANES) * w01
        v = v + load(ring, o0 + j + 2 * d, LANES) * w02
        v = v + load(ring, o1 + j, LANES) * w10 + load(ring, o1 + j + d, LANES) * w11
        v = v + load(ring, o1 + j + 2 * d, LANES) * w12
        v = v + load(ring, o2 + j, LANES) * w20 + load(ring, o2 + j + d, LANES) * w21
        v = v + load(ring, o2 + j + 2 * d, LANES) * w22
        if given(post[1]):
            v = clamp(v * a + b, lo, hi)
        store(y, i + q * channels, v, m)
        prefetch_write(y, i + (q + columns) * channels)
        total = total + v
        squares = squares + v * v
    if given(sums):
        accumulate(sums, at, total, m)
        accumulate(sums, at + channels, squares, m)


@inline
def forward_row(y, i, columns, channels, m, ring, base, row, h, size, depth, steps, w, taps, c, sums, at, post):
    """One row of y for any kernel, as `forward_row_3x3`.

    base, row, depth: where the ring begins, elements of a row of it, its rows; h: line of x, of `size`, under the first
    tap; steps: per tap row, per tap column and per window; taps: rows and columns of the kernel w.
    """
    a, b, lo, hi = after(y, post, c, m)
    total, squares = splat(y, 0.0), splat(y, 0.0)
    for q in range(columns):
        v = splat(y, 0.0)
        for r in range(taps[0]):
            line = h + r * steps[0]
            if 0 <= line < size:
                j = base + line % depth * row + q * steps[2]
                for s in range(taps[1]):
                    v = v + load(ring, j + s * steps[1], LANES) * load(w, (r * taps[1] + s) * channels + c, m)
        if given(post[1]):
            v = clamp(v * a + b, lo, hi)
        store(y, i + q * channels, v, m)
        total = total + v
        squares = squares + v * v
    if given(sums):
        accumulate(sums, at, total, m)
        accumulate(sums, at + channels, squares, m)


@inline
def slot(line, size, depth):
    """Place in the ring of a line of a map of `size` lines; beyond its borders the row of zeros, which is the last."""
    return line % depth if 0 <= line < size else depth


@inline
def forward_item(
    y, x, w, affine, act, sums, post, ring, part, images, first, end, shape, taps, stride, dilation, top, left
):
    """Channels first … end−1 of y for the images of slice `part`.

    Arrays as in `forward`, by their addresses; ring: the scratch of the thread. images: the first one and the one after
    the last; shape: H W C P Q; taps: R S; stride, dilation: (rows, columns); top, left: the padding before the map;
    post: what is done to y (`after`).
    """
    size, width, channels, p_size, q_size = shape
    depth, columns = _forward_ring(width, q_size, taps, stride[1], dilation, left)
    row = columns * LANES
    block = (depth + 1) * row
    steps = (dilation[0], dilation[1] * LANES, stride[1] * LANES)
    clear(ring, 0, (end - first + LANES - 1) // LANES * block)
    if given(sums):
        for moment in range(2):
            clear(sums, (2 * part + moment) * channels + first, (2 * part + moment) * channels + end)
    for n in range(images[0], images[1]):
        loaded = 0
        for p in range(p_size):
            h = p * stride[0] - top
            stop = min(h + (taps[0] - 1) * dilation[0] + 1, size)
            for line in range(max(loaded, h), stop):
                i = (n * size + line) * width * channels
                for c in range(first, end, LANES):
                    at = (c - first) // LANES * block + line % depth * row + left * LANES
                    read_row(ring, at, LANES, x, i + c, width, channels, min(LANES, end - c), affine, c, act)
            loaded = max(loaded, stop)
            i = (n * p_size + p) * q_size * channels
            o0 = slot(h, size, depth) * row
            o1 = slot(h + dilation[0], size, depth) * row
            o2 = slot(h + 2 * dilation[0], size, depth) * row
            for c in range(first, end, LANES):
                base, m, at = (c - first) // LANES * block, min(LANES, end - c), part * 2 * channels + c
                if taps == (3, 3):
                    rows = (base + o0, base + o1, base + o2)
                    forward_row_3x3(y, i + c, q_size, channels, m, ring, rows, steps[2], steps[1], w, c, sums, at, post)
                else:
                    forward_row(
                        y, i + c, q_size, channels, m, ring, base, row, h, size, depth, steps, w, taps, c, sums, at,
                        post,
                    )  # fmt: skip


def forward_executes(y, x, w, affine, sums, scale, shift, scratch, act, post, stride, dilation, pad) -> Ops:
    """Rows of x̂ as they come into the ring, rows of y with their sums, which are made whether anyone reads them or not.

    Taps beside the map are multiplied, rows of taps above and below it in the 3×3 kernel only.
    """
    (size, width), (rows, columns), (r_size, s_size) = x.shape[1:3], y.shape[1:3], w.shape[:2]
    taps, loaded, read = 0, 0, 0
    for p in range(rows):
        h = p * stride[0] - pad[0][0]
        stop = min(h + (r_size - 1) * dilation[0] + 1, size)
        read += max(0, stop - max(loaded, h))
        loaded = max(loaded, stop)
        taps += sum(0 <= h + r * dilation[0] < size for r in range(r_size))
    executed = read_row_executes(affine) * (read * width)
    if (r_size, s_size) == (3, 3):
        executed += (MAC * 9 + Ops(0, -1)) * (rows * columns)  # nine products, eight sums
    else:
        executed += MAC * (taps * s_size * columns)
    executed += ((MAC if shift.size else NOTHING) + ADD + MAC) * (rows * columns)
    executed += (ADD * 2 if sums.size else NOTHING) * rows
    return executed * (x.shape[0] * lanes(x.shape[3]))


@executes(forward_executes)
@fast
def forward(y, x, w, affine, sums, scale, shift, scratch, act, post, stride, dilation, pad):
    """Write y (N, P, Q, C) and its sums, from x (N, H, W, C) read through `affine` and `act`, and w (R, S, 1, C).

    affine (2, C): a and b, or (0, 0) to read x as it is (then `act` must be NONE). act: of `activation`.
    sums (slices(N), 2, C) float64: Σy and Σy² per slice, or (0, 0, 0) for none.
    scale, shift (C,), post: y becomes post(scale·y + shift), such as a bias or a frozen batch norm with its activation;
    scale may be (0,), and shift (0,) means that y stays as it is.
    scratch (threads, forward_scratch(…)). stride (2,), dilation (2,), pad ((top, bottom), (left, right)).
    """
    top, left = pad[0][0], pad[1][0]
    count, channels = x.shape[0], x.shape[3]
    taps = (w.shape[0], w.shape[1])
    parts = _slices(count)
    rows, columns = _forward_ring(x.shape[2], y.shape[2], taps, stride[1], dilation, left)
    blocks = _blocks_per_item(channels, count, (rows + 1) * columns * LANES * x.itemsize)
    groups = -(-channels // (blocks * LANES))
    for t in prange(parts * groups):
        part = np.int64(t) // groups
        first = np.int64(t) % groups * blocks * LANES
        forward_item(
            address(y), address(x), address(w), address(affine), act, address(sums),
            (address(scale), address(shift), post), address(scratch[get_thread_id()]),
            part, (count * part // parts, count * (part + 1) // parts), first, min(first + blocks * LANES, channels),
            (x.shape[1], x.shape[2], channels, y.shape[1], y.shape[2]), taps, stride, dilation, top, left,
        )  # fmt: skip


@inline
def backward_row_3x3(dx, x, i, width, channels, m, ring, rows, d, w, affine, c, act, weights, dw_at, sums, at):
    """One row of dx, from element i on, and its share of dw: nine weights, nine sums of dw and two of the norm before.

    width, channels: of dx; m: how many channels are worked on, c: the first of them. rows: where in the ring the rows
    of dy are that meet taps 0, 1, 2, from the column that meets column tap 0 on column 0; d: elements of the ring from
    one tap to the next. affine, act: how x is read. weights: where the sums of dw go, at dw_at; sums: those of the
    norm, at `at`. All sums of a row stay in registers.
    """
    o0, o1, o2 = rows
    w00, w01, w02 = load(w, c, m), load(w, channels + c, m), load(w, 2 * channels + c, m)
    w10, w11, w12 = load(w, 3 * channels + c, m), load(w, 4 * channels + c, m), load(w, 5 * channels + c, m)
    w20, w21, w22 = load(w, 6 * channels + c, m), load(w, 7 * channels + c, m), load(w, 8 * channels + c, m)
    dw00 = dw01 = dw02 = dw10 = dw11 = dw12 = dw20 = dw21 = dw22 = total = products = splat(x, 0.0)
    lo, hi = bounds(x, act)
    a, b = splat(x, 1.0), splat(x, 0.0)
    if given(affine):
        a, b = load(affine, c, m), load(affine, channels + c, m)
    for col in range(width):
        j = col * LANES
        raw = splat(w, 0.0)
        if given(x):
            raw = load(x, i + col * channels, m)
            prefetch(x, i + (col + width) * channels)
        prefetch_write(dx, i + (col + width) * channels)
        z = raw * a + b
        xe = clamp(z, lo, hi)
        g = load(ring, o0 + j, LANES)
        e = g * w00
        dw00 = dw00 + g * xe
        g = load(ring, o0 + j - d, LANES)
        e = e + g * w01
        dw01 = dw01 + g * xe
        g = load(ring, o0 + j - 2 * d, LANES)
        e = e + g * w02
        dw02 = dw02 + g * xe
        g = load(ring, o1 + j, LANES)
        e = e + g * w10
        dw10 = dw10 + g * xe
        g = load(ring, o1 + j - d, LANES)
        e = e + g * w11
        dw11 = dw11 + g * xe
        g = load(ring, o1 + j - 2 * d, LANES)
        e = e + g * w12
        dw12 = dw12 + g * xe
        g = load(ring, o2 + j, LANES)
        e = e + g * w20
        dw20 = dw20 + g * xe
        g = load(ring, o2 + j - d, LANES)
        e = e + g * w21
        dw21 = dw21 + g * xe
        g = load(ring, o2 + j - 2 * d, LANES)
        e = e + g * w22
        dw22 = dw22 + g * xe
        e = keep(e, z, lo, hi)
        total = total + e
        products = products + e * raw
        if given(dx):
            store(dx, i + col * channels, e, m)
    accumulate(weights, dw_at, dw00, LANES)
    accumulate(weights, dw_at + LANES, dw01, LANES)
    accumulate(weights, dw_at + 2 * LANES, dw02, LANES)
    accumulate(weights, dw_at + 3 * LANES, dw10, LANES)
    accumulate(weights, dw_at + 4 * LANES, dw11, LANES)
    accumulate(weights, dw_at + 5 * LANES, dw12, LANES)
    accumulate(weights, dw_at + 6 * LANES, dw20, LANES)
    accumulate(weights, dw_at + 7 * LANES, dw21, LANES)
    accumulate(weights, dw_at + 8 * LANES, dw22, LANES)
    if given(sums):
        accumulate(sums, at, total, m)
        accumulate(sums, at + channels, products, m)


@inline
def gradient_slot(h, size, depth, stride):
    """Place in the ring of the row of dy at row h of the spread map; the row of zeros where there is none."""
    return h // stride % depth if h >= 0 and h % stride == 0 and h // stride < size else depth


@inline
def backward_row(
    dx, x, i, width, channels, m, ring, base, rows, steps, w, taps, affine, c, act, weights, dw_at, sums, at
):
    """One row of dx and its share of dw for any kernel; the sums of dw stay in scratch.

    base: where the ring begins; rows: (row of the spread dy under tap 0, rows of dy, rows of the ring, elements of a
    row of the ring); steps: per tap row, per tap column, stride of the rows; taps: rows and columns of w. The others as
    in `backward_row_3x3`.
    """
    h, size, depth, row = rows
    lo, hi = bounds(x, act)
    a, b = splat(x, 1.0), splat(x, 0.0)
    if given(affine):
        a, b = load(affine, c, m), load(affine, channels + c, m)
    total, products = splat(x, 0.0), splat(x, 0.0)
    for col in range(width):
        raw = splat(w, 0.0)
        if given(x):
            raw = load(x, i + col * channels, m)
        z = raw * a + b
        xe = clamp(z, lo, hi)
        e = splat(x, 0.0)
        for r in range(taps[0]):
            place = gradient_slot(h - r * steps[0], size, depth, steps[2])
            if place < depth:
                j = base + place * row + col * LANES
                for s in range(taps[1]):
                    g = load(ring, j - s * steps[1], LANES)
                    e = e + g * load(w, (r * taps[1] + s) * channels + c, m)
                    accumulate(weights, dw_at + (r * taps[1] + s) * LANES, g * xe, LANES)
        e = keep(e, z, lo, hi)
        total = total + e
        products = products + e * raw
        if given(dx):
            store(dx, i + col * channels, e, m)
    if given(sums):
        accumulate(sums, at, total, m)
        accumulate(sums, at + channels, products, m)


@inline
def backward_item(
    dx, dw, dz, y, coef, x, affine, act, w, sums, ring, part, images, first, end, shape, taps, stride, dilation,
    top, left,
):  # fmt: skip
    """Channels first … end−1 of dx, and of dw of slice `part`.

    Arrays as in `backward`, by their addresses; ring: the scratch of the thread, rows of dy and, after them, the sums
    of dw. images: the first one and the one after the last; shape: H W C P Q; taps: R S; stride, dilation: (rows,
    columns); top, left: the padding before the map.
    """
    size, width, channels, p_size, q_size = shape
    depth, columns = _backward_ring(width, q_size, taps, stride, dilation, left)
    before = max(0, (taps[1] - 1) * dilation[1] - left)
    row = columns * LANES
    block = (depth + 1) * row
    count = taps[0] * taps[1]
    weights = (end - first + LANES - 1) // LANES * block  # where the sums of dw begin in the scratch
    stop_weights = weights + (end - first + LANES - 1) // LANES * count * LANES
    steps = (dilation[0], dilation[1] * LANES, stride[0])
    clear(ring, 0, weights)
    if given(sums):
        for moment in range(2):
            clear(sums, (2 * part + moment) * channels + first, (2 * part + moment) * channels + end)
    if given(dw):
        for tap in range(count):
            clear(dw, (part * count + tap) * channels + first, (part * count + tap) * channels + end)
    for n in range(images[0], images[1]):
        clear(ring, weights, stop_weights)
        loaded = 0
        for h in range(size):
            stop = min((h + top) // stride[0] + 1, p_size)
            for p in range(max(loaded, stop - depth), stop):
                i = (n * p_size + p) * q_size * channels
                for c in range(first, end, LANES):
                    at = (c - first) // LANES * block + p % depth * row + before * LANES
                    m = min(LANES, end - c)
                    read_gradient_row(ring, at, stride[1] * LANES, dz, y, i + c, q_size, channels, m, coef, c)
            loaded = max(loaded, stop)
            i = (n * size + h) * width * channels
            zero = (before + left) * LANES
            o0 = gradient_slot(h + top, p_size, depth, stride[0]) * row + zero
            o1 = gradient_slot(h + top - dilation[0], p_size, depth, stride[0]) * row + zero
            o2 = gradient_slot(h + top - 2 * dilation[0], p_size, depth, stride[0]) * row + zero
            for c in range(first, end, LANES):
                number, m, at = (c - first) // LANES, min(LANES, end - c), part * 2 * channels + c
                base, dw_at = number * block, weights + number * count * LANES
                if taps == (3, 3):
                    rows = (base + o0, base + o1, base + o2)
                    backward_row_3x3(
                        dx, x, i + c, width, channels, m, ring, rows, steps[1], w, affine, c, act, ring, dw_at, sums,
                        at,
                    )  # fmt: skip
                else:
                    rows = (h + top, p_size, depth, row)
                    backward_row(
                        dx, x, i + c, width, channels, m, ring, base + zero, rows, steps, w, taps, affine, c, act,
                        ring, dw_at, sums, at,
                    )  # fmt: skip
        if given(dw):
            for c in range(first, end, LANES):
                for tap in range(count):
                    share = load(ring, weights + ((c - first) // LANES * count + tap) * LANES, LANES)
                    accumulate(dw, (part * count + tap) * channels + c, share, min(LANES, end - c))


def backward_executes(dx, dw, dz, y, coef, x, affine, w, sums, scratch, act, stride, dilation, pad) -> Ops:
    """Rows of dy as they come into the ring, rows of dx with their share of dw, which is made even where nobody asks.

    Taps beside the map are multiplied, rows of taps above and below it and between strides in the 3×3 kernel only.
    """
    count, size, width, channels = x.shape if x.size else dx.shape
    (p_size, q_size), (r_size, s_size) = dz.shape[1:3], w.shape[:2]
    depth = (r_size - 1) * dilation[0] // stride[0] + 1
    taps, loaded, read = 0, 0, 0
    for h in range(size):
        stop = min((h + pad[0][0]) // stride[0] + 1, p_size)
        read += max(0, stop - max(loaded, stop - depth))
        loaded = max(loaded, stop)
        for r in range(r_size):
            at = h + pad[0][0] - r * dilation[0]
            taps += at >= 0 and at % stride[0] == 0 and at // stride[0] < p_size
    executed = read_gradient_executes(y, coef) * (read * q_size)
    each = MAC + ADD + MAC  # z, and the sums for the norm before
    if (r_size, s_size) == (3, 3):
        executed += (each + MAC * 18 + Ops(0, -1)) * (size * width) + ADD * (9 * size)
    else:
        executed += each * (size * width) + MAC * (2 * taps * s_size * width)
    executed += (ADD * (2 * size) if sums.size else NOTHING) + (ADD * (r_size * s_size) if dw.size else NOTHING)
    return executed * (count * lanes(channels))


@executes(backward_executes)
@fast
def backward(dx, dw, dz, y, coef, x, affine, w, sums, scratch, act, stride, dilation, pad):
    """Write dx (N, H, W, C), dw per slice (slices(N), R, S, 1, C) and the sums of the norm before.

    The gradient at the raw output is coef[0]·dz + coef[1]·y + coef[2]; without y (0, 0, 0, 0) it is coef[0]·dz,
    without coef (0, 0) it is dz (N, P, Q, C). w (R, S, 1, C), stride, dilation and pad, and how x (N, H, W, C) is read
    through `affine` and `act`, are those of forward.
    dx is zero where the activation is flat: ∂L/∂(a·x + b). An empty dx or dw is not written; without dw, affine and
    sums nothing is read of x, which may be empty.
    sums (slices(N), 2, C) float64: Σ dx and Σ dx·x per slice, or (0, 0, 0). scratch (threads, backward_scratch(…)).
    """
    top, left = pad[0][0], pad[1][0]
    count, size, width, channels = x.shape if x.size else dx.shape
    taps = (w.shape[0], w.shape[1])
    parts = _slices(count)
    rows, columns = _backward_ring(width, dz.shape[2], taps, stride, dilation, left)
    blocks = _blocks_per_item(channels, count, ((rows + 1) * columns + taps[0] * taps[1]) * LANES * w.itemsize)
    groups = -(-channels // (blocks * LANES))
    for t in prange(parts * groups):
        part = np.int64(t) // groups
        first = np.int64(t) % groups * blocks * LANES
        backward_item(
            address(dx), address(dw), address(dz), address(y), address(coef), address(x), address(affine), act,
            address(w), address(sums), address(scratch[get_thread_id()]), part,
            (count * part // parts, count * (part + 1) // parts), first, min(first + blocks * LANES, channels),
            (size, width, channels, dz.shape[1], dz.shape[2]), taps, stride, dilation, top, left,
        )  # fmt: skip
