"""Maxima and means of windows: neighbouring threads work on neighbouring channels of the same pixels.

These read and write and compute next to nothing. A thread makes EACH pixels of a row, so that it says once where they
lie. Windows are constants of the kernel: small ones the compiler writes out, tap by tap, and no turn asks whether it is
beside the map, for what is there is loaded from the edge and does not count. Taps are added in the order of the bodies
of the operators. Maps, (N, H, W, C), are given as their elements.
"""

import numpy as np

from ...compiler.executed import ADD, IADD, NOTHING, Ops, executes
from ...kernels import cuda as house
from ...kernels.cuda import THREADS, at, jit
from ...kernels.cuda import late as cuda
from ...kernels.requantize import saturated
from ...kernels.rounding import passes_bit
from .tile import up
from .unrolled import Taps, Unrolled, multiple, nearest, parted

EACH = 4  # pixels of a thread
NO_TAP = 256  # a place that no maximum is at, for they are kept in bytes
LANES, SHARE = 8, 8  # threads that share the sum over a map at most, and pixels that are worth one of them


def of_dx(across: int) -> int:
    """Pixels of a row of dx that a thread makes, columns of x from output to output: each run meets the same taps."""
    return multiple(EACH, across)


def max_forward(taps: Taps, dtype):
    """y, the maximum of each window of x, and in argmax, uint8, where it is given, the place of its tap: r·S + s.

    Whole numbers are saturated at low and high. A tap beside the map counts as the nearest one on it, which is of the
    same window and next to it in order.
    """
    taps_h, taps_w, up_h, up_w, _, _, above, left, keeps = taps
    zero, whole = dtype(0), np.issubdtype(dtype, np.integer)

    @jit
    def kernel(items, y, argmax, x, geometry, low, high):
        height, width, out_h, out_w, channels = geometry[:5]
        runs = (out_w + EACH - 1) // EACH
        t = at(cuda.grid(1))
        while t < at(items):
            rest, c = parted(t, channels)
            rest, run = parted(rest, runs)
            n, p = parted(rest, out_h)
            for i in range(EACH):
                q = run * EACH + i
                if q < out_w:
                    h, v = p * up_h - above, q * up_w - left
                    best, place = zero, 0
                    for r in range(taps_h):
                        row = nearest(h + r, height)
                        for s in range(taps_w):
                            column = nearest(v + s, width)
                            value = x[at(((n * height + row) * width + column) * channels + c)]
                            wins = (value > best) | (value != value) | (r + s == 0)
                            best = value if wins else best
                            place = (row - h) * taps_w + column - v if wins else place
                    e = ((n * out_h + p) * out_w + q) * channels + c
                    if whole:
                        y[at(e)] = saturated(best, low, high, y)
                    else:
                        y[at(e)] = best
                    if keeps:
                        argmax[at(e)] = place
            t += at(cuda.gridsize(1))

    return kernel


def max_grad_x(taps: Taps, dtype):
    """dx, of each pixel the sum of dy over the windows that have their maximum, by argmax, there.

    dy comes through mask, (N, B), where it is given.
    """
    taps_h, taps_w, up_h, up_w, _, _, above, left, masked = taps
    zero, run, most_h, most_w = dtype(0), of_dx(taps.across), up(taps_h, up_h), up(taps_w, up_w)

    @jit
    def kernel(items, dx, dy, argmax, mask, geometry):
        height, width, out_h, out_w, channels = geometry[:5]
        runs = (width + run - 1) // run
        t = at(cuda.grid(1))
        while t < at(items):
            rest, c = parted(t, channels)
            rest, side = parted(rest, runs)
            n, h = parted(rest, height)
            last, first_tap = parted(h + above, up_h)
            for i in range(run):
                if side * run + i < width:
                    total = zero
                    for a in range(most_h):  # from the last window on, of which the first tap is here
                        near_p, r = nearest(last - a, out_h), first_tap + a * up_h
                        tap = r * taps_w if (near_p == last - a) & (r < taps_h) else NO_TAP
                        start = (n * out_h + near_p) * out_w * channels + c
                        for b in range(most_w):
                            q, s = side * (run // up_w) + (i + left) // up_w - b, (i + left) % up_w + b * up_w
                            if s < taps_w:
                                near_q = nearest(q, out_w)
                                e = start + near_q * channels
                                value = dy[at(e)]
                                if masked:
                                    value = value if passes_bit(mask, n, e - n * out_h * out_w * channels) else zero
                                total += value if (argmax[at(e)] == tap + s) & (near_q == q) else zero
                    dx[at(((n * height + h) * width + side * run + i) * channels + c)] = total
            t += at(cuda.gridsize(1))

    return kernel


def max_tangent(taps: Taps, dtype):
    """ty, that of tx at the place of each maximum, argmax."""
    _, taps_w, up_h, up_w, _, _, above, left, _ = taps

    @jit
    def kernel(items, ty, tx, argmax, geometry):
        height, width, out_h, out_w, channels = geometry[:5]
        runs = (out_w + EACH - 1) // EACH
        t = at(cuda.grid(1))
        while t < at(items):
            rest, c = parted(t, channels)
            rest, run = parted(rest, runs)
            n, p = parted(rest, out_h)
            for i in range(EACH):
                q = run * EACH + i
                if q < out_w:
                    e = at(((n * out_h + p) * out_w + q) * channels + c)
                    r, s = parted(argmax[e], taps_w)
                    h, v = p * up_h - above + r, q * up_w - left + s
                    ty[e] = tx[at(((n * height + h) * width + v) * channels + c)]
            t += at(cuda.gridsize(1))

    return kernel


def mean_forward(taps: Taps, dtype):
    """y, the mean of each window of x. margin: rows above and below, columns left and right whose taps count too."""
    taps_h, taps_w, up_h, up_w, _, _, above, left, _ = taps
    zero = dtype(0)

    @jit
    def kernel(items, y, x, geometry, margin):
        height, width, out_h, out_w, channels = geometry[:5]
        north, south, west, east = margin
        runs = (out_w + EACH - 1) // EACH
        t = at(cuda.grid(1))
        while t < at(items):
            rest, c = parted(t, channels)
            rest, run = parted(rest, runs)
            n, p = parted(rest, out_h)
            h = p * up_h - above
            rows = min(h + taps_h, height + south) - max(h, -north)
            for i in range(EACH):
                q = run * EACH + i
                if q < out_w:
                    v, total = q * up_w - left, zero
                    columns = min(v + taps_w, width + east) - max(v, -west)
                    for r in range(taps_h):
                        row = nearest(h + r, height)
                        for s in range(taps_w):
                            column = nearest(v + s, width)
                            value = x[at(((n * height + row) * width + column) * channels + c)]
                            total += value if (row == h + r) & (column == v + s) else zero
                    y[at(((n * out_h + p) * out_w + q) * channels + c)] = total / y.dtype.type(rows * columns)
            t += at(cuda.gridsize(1))

    return kernel


def mean_grad_x(taps: Taps, dtype):
    """dx, of each pixel the sum of dy over the windows that hold it, each by the taps that its mean counts."""
    taps_h, taps_w, up_h, up_w, _, _, above, left, _ = taps
    zero, run, most_h, most_w = dtype(0), of_dx(taps.across), up(taps_h, up_h), up(taps_w, up_w)

    @jit
    def kernel(items, dx, dy, geometry, margin):
        height, width, out_h, out_w, channels = geometry[:5]
        north, south, west, east = margin
        runs = (width + run - 1) // run
        t = at(cuda.grid(1))
        while t < at(items):
            rest, c = parted(t, channels)
            rest, side = parted(rest, runs)
            n, h = parted(rest, height)
            last, first_tap = parted(h + above, up_h)
            for i in range(run):
                if side * run + i < width:
                    total = zero
                    for a in range(most_h):  # from the last window on, of which the first tap is here
                        p = last - a
                        top, near_p = p * up_h - above, nearest(p, out_h)
                        rows = min(top + taps_h, height + south) - max(top, -north)
                        there = (near_p == p) & (first_tap + a * up_h < taps_h)
                        start = (n * out_h + near_p) * out_w * channels + c
                        for b in range(most_w):
                            q = side * (run // up_w) + (i + left) // up_w - b
                            if (i + left) % up_w + b * up_w < taps_w:
                                v, near_q = q * up_w - left, nearest(q, out_w)
                                columns = min(v + taps_w, width + east) - max(v, -west)
                                value = dy[at(start + near_q * channels)] / dx.dtype.type(rows * columns)
                                total += value if there & (near_q == q) else zero
                    dx[at(((n * height + h) * width + side * run + i) * channels + c)] = total
            t += at(cuda.gridsize(1))

    return kernel


def map_forward(taps: Taps, dtype):
    """y, (N, C), the mean of each whole map of x, which is one window.

    A block makes neighbouring channels of a sample: some threads share the pixels of each, and one adds what they
    found, in order. For `map_items`.
    """
    pixels, zero = taps.rows * taps.columns, dtype(0)
    shared = lanes(pixels)

    @jit
    def kernel(items, y, x, geometry):
        channels, threads, i = geometry[4], cuda.blockDim.x, cuda.threadIdx.x
        part = cuda.shared.array(THREADS, dtype)
        wide = threads // shared
        groups = (channels + wide - 1) // wide
        t = cuda.grid(1)
        while t < items:
            n, group = parted(t // threads, groups)
            c, pixel, total = group * wide + i % wide, i // wide, zero
            while c < channels and pixel < pixels:
                total += x[at((n * pixels + pixel) * channels + c)]
                pixel += shared
            part[i] = total
            cuda.syncthreads()
            if i < wide and c < channels:
                for lane in range(1, shared):
                    total += part[lane * wide + i]
                y[at(n * channels + c)] = total / y.dtype.type(pixels)
            cuda.syncthreads()
            t += cuda.gridsize(1)

    return kernel


def map_grad_x(taps: Taps, dtype):
    """dx, of each pixel its share of dy, (N, C): EACH pixels of a channel a thread."""
    pixels = taps.rows * taps.columns

    @jit
    def kernel(items, dx, dy, geometry):
        channels = geometry[4]
        runs = (pixels + EACH - 1) // EACH
        t = at(cuda.grid(1))
        while t < at(items):
            rest, c = parted(t, channels)
            n, run = parted(rest, runs)
            value = dy[at(n * channels + c)] / dx.dtype.type(pixels)
            for i in range(EACH):
                pixel = run * EACH + i
                if pixel < pixels:
                    dx[at((n * pixels + pixel) * channels + c)] = value
            t += at(cuda.gridsize(1))

    return kernel


def lanes(pixels: int) -> int:
    """Threads that share the sum over a map, a power of two."""
    most = min(LANES, house.grid(1)[1], max(pixels // SHARE, 1))
    return 1 << (most.bit_length() - 1)


def map_items(samples: int, pixels: int, channels: int) -> int:
    """The items of `map_forward`."""
    threads = house.grid(1)[1]
    return samples * up(channels, threads // lanes(pixels)) * threads


def _means(items, y, x, geometry, margin) -> Ops:
    """An addition for each tap, on the map or beside it."""
    return ADD * (y.size * geometry[5] * geometry[6])


def _map_executes(items, y, x, geometry) -> Ops:
    return ADD * (x.size + y.size * (lanes(geometry[0] * geometry[1]) - 1))


def _collected(dx, geometry) -> Ops:
    """An addition for each window that can lie over a pixel by its column, and as many rows as there can be."""
    _, width, _, _, _, taps_h, taps_w, up_h, up_w, _, _, _, left = geometry
    columns = sum(up(max(taps_w - (v + left) % up_w, 0), up_w) for v in range(width))
    return (IADD if dx.dtype.kind == "i" else ADD) * (dx.size // width * columns * up(taps_h, up_h))


def _max_grad_x_executes(items, dx, dy, argmax, mask, geometry) -> Ops:
    return _collected(dx, geometry)


def _mean_grad_x_executes(items, dx, dy, geometry, margin) -> Ops:
    return _collected(dx, geometry)


MAX_FORWARD = executes(lambda items, y, argmax, x, geometry, low, high: NOTHING)(Unrolled(max_forward, 3, 1))
MAX_GRAD_X = executes(_max_grad_x_executes)(Unrolled(max_grad_x, 4, 3))
MAX_TANGENT = executes(lambda items, ty, tx, argmax, geometry: NOTHING)(Unrolled(max_tangent, 3))
MEAN_FORWARD = executes(_means)(Unrolled(mean_forward, 2))
MEAN_GRAD_X = executes(_mean_grad_x_executes)(Unrolled(mean_grad_x, 2))
MAP_FORWARD = executes(_map_executes)(Unrolled(map_forward, 2))
MAP_GRAD_X = executes(lambda items, dx, dy, geometry: NOTHING)(Unrolled(map_grad_x, 2))
