"""Depthwise convolution and its gradients: neighbouring threads work on neighbouring channels of the same pixels.

These read and write much and compute little, so each map is gone over once. A thread makes EACH results of a row, for
which it loads a tap's weight once; of the gradient of the weights it makes all taps of a channel over a slice of the
output pixels, for which it loads dy once. Taps and strides are constants of the kernel: loops over them are unrolled.
Where a few channels train, as in sparse update, the gradient of their weights is made of these alone.

What follows forward (a frozen norm's scale and shift or a bias, a rectifier) is done on the results in registers; dy
comes through a rectifier's mask and a frozen norm's scale, as in the convolutions on tiles. Maps are (pixels, C).
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from ...compiler.executed import MAC, MUL, NOTHING, Ops, executes
from ...kernels import cuda as house
from ...kernels.cuda import jit
from ...kernels.cuda import late as cuda
from ...kernels.geometry import inside
from ..activation import RELU, RELU6
from .tile import up

EACH = 4  # results of a thread


class Taps(NamedTuple):
    """Rows and columns of a kernel, and rows and columns from an output pixel to the next."""

    rows: int
    columns: int
    down: int
    across: int


def forward(taps: Taps, dtype):
    """y (pixels, C) ← act(scale · (x ∗ w) + shift), EACH pixels of a row and a channel a thread."""
    taps_h, taps_w, up_h, up_w = taps
    zero, six = dtype(0), dtype(6)

    @jit
    def kernel(items, y, x, w, scale, shift, geometry, act):
        height, width, out_h, out_w, channels, _, _, _, _, apart_h, apart_w, above, left = geometry
        blocks = (out_w + EACH - 1) // EACH
        for t in range(cuda.grid(1), items, cuda.gridsize(1)):
            total = cuda.local.array(EACH, dtype)
            rest, c = divmod(t, channels)
            rest, block = divmod(rest, blocks)
            n, p = divmod(rest, out_h)
            for j in range(EACH):
                total[j] = zero
            for r in range(taps_h):
                h = p * up_h - above + r * apart_h
                if 0 <= h and h < height:
                    for s in range(taps_w):
                        factor = w[r, s, 0, c]
                        for j in range(EACH):
                            v = (block * EACH + j) * up_w - left + s * apart_w
                            if 0 <= v and v < width:
                                total[j] += x[(n * height + h) * width + v, c] * factor
            for j in range(EACH):
                q = block * EACH + j
                if q < out_w:
                    value = total[j]
                    if scale.shape[0]:
                        value *= scale[c]
                    if shift.shape[0]:
                        value += shift[c]
                    if act >= RELU:
                        value = zero if value <= zero else value
                    if act == RELU6:
                        value = six if value >= six else value
                    y[(n * out_h + p) * out_w + q, c] = value

    return kernel


def grad_x(taps: Taps, dtype):
    """dx (pixels, C) ← the sum over taps of dy · w, EACH pixels of a row and a channel a thread."""
    taps_h, taps_w, up_h, up_w = taps
    zero = dtype(0)

    @jit
    def kernel(items, dx, dy, mask, scale, w, geometry):
        height, width, out_h, out_w, channels, _, _, _, _, apart_h, apart_w, above, left = geometry
        blocks = (width + EACH - 1) // EACH
        for t in range(cuda.grid(1), items, cuda.gridsize(1)):
            total = cuda.local.array(EACH, dtype)
            rest, c = divmod(t, channels)
            rest, block = divmod(rest, blocks)
            n, h = divmod(rest, height)
            for j in range(EACH):
                total[j] = zero
            for r in range(taps_h):
                p, more_h = divmod(h + above - r * apart_h, up_h)
                if more_h == 0 and 0 <= p and p < out_h:
                    for s in range(taps_w):
                        factor = w[r, s, 0, c]
                        for j in range(EACH):
                            q, more_w = divmod(block * EACH + j + left - s * apart_w, up_w)
                            if more_w == 0 and 0 <= q and q < out_w:
                                value = dy[(n * out_h + p) * out_w + q, c]
                                if mask.shape[0]:
                                    e = (p * out_w + q) * channels + c
                                    value = value if (mask[n, e >> 3] >> (e & 7)) & 1 else zero
                                total[j] += value * factor
            for j in range(EACH):
                v = block * EACH + j
                if v < width:
                    value = total[j]
                    if scale.shape[0]:
                        value *= scale[c]
                    dx[(n * height + h) * width + v, c] = value

    return kernel


def grad_w(taps: Taps, dtype):
    """dw (slices, R, S, 1, C), each the sum over `length` output pixels; all taps of a channel and a slice a thread.

    kept: the channels of dy that x, (pixels, M), and dw, (slices, R, S, 1, M), are of; empty where that is all of them.
    """
    taps_h, taps_w, up_h, up_w = taps
    count, zero = taps_h * taps_w, dtype(0)

    @jit
    def kernel(items, dw, dy, mask, scale, kept, x, geometry, length):
        height, width, out_h, out_w, _, _, _, _, _, apart_h, apart_w, above, left = geometry
        for t in range(cuda.grid(1), items, cuda.gridsize(1)):
            total = cuda.local.array(count, dtype)
            piece, c = divmod(t, x.shape[1])
            k = c
            if kept.shape[0]:
                k = kept[c]
            for tap in range(count):
                total[tap] = zero
            end = (piece + 1) * length
            if end > dy.shape[0]:
                end = dy.shape[0]
            rest, q = divmod(piece * length, out_w)
            n, p = divmod(rest, out_h)
            for row in range(piece * length, end):
                value = dy[row, k]
                if mask.shape[0]:
                    e = (p * out_w + q) * dy.shape[1] + k
                    value = value if (mask[n, e >> 3] >> (e & 7)) & 1 else zero
                for r in range(taps_h):
                    h = p * up_h - above + r * apart_h
                    if 0 <= h and h < height:
                        for s in range(taps_w):
                            v = q * up_w - left + s * apart_w
                            if 0 <= v and v < width:
                                total[r * taps_w + s] += x[(n * height + h) * width + v, c] * value
                q += 1
                if q == out_w:
                    p, q = p + 1, 0
                if p == out_h:
                    n, p = n + 1, 0
            for r in range(taps_h):
                for s in range(taps_w):
                    value = total[r * taps_w + s]
                    if scale.shape[0]:
                        value *= scale[k]
                    dw[piece, r, s, 0, c] = value

    return kernel


class Unrolled:
    """A kernel `(items, *args)` whose taps are constants: those of its geometry.

    make: (taps, dtype) → the CUDA kernel, made once for each. geometry: its place among the arguments.
    """

    def __init__(self, make: Callable, geometry: int):
        self.plain, self.make, self.geometry = make, cache(make), geometry
        self.__name__, self.__module__ = f"depthwise_{make.__name__}", make.__module__

    def __call__(self, items: int, *args, stream=0) -> None:
        """Launch it in a stream; nothing for no items."""
        if items:
            _, _, _, _, _, rows, columns, down, across, *_ = args[self.geometry]
            blocks, threads = house.grid(items)
            kernel = self.make(Taps(rows, columns, down, across), np.dtype(args[0].dtype).type)
            kernel[blocks, threads, stream](items, *args)


def _pairs(geometry, columns: int, of_columns: int) -> int:
    """Taps that meet a pixel of a map, over all output pixels: of maps with so many columns, made of so many of y."""
    height, _, out_h, _, _, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
    down = inside(height, taps_h, out_h, up_h, apart_h, (above, 0))
    across = inside(columns, taps_w, of_columns, up_w, apart_w, (left, 0))
    return int(np.count_nonzero(down)) * int(np.count_nonzero(across))


def _forward_executes(items, y, x, w, scale, shift, geometry, act) -> Ops:
    """Results beside a row that is no multiple of EACH too."""
    _, width, out_h, out_w, *_ = geometry
    after = Ops(mul=bool(scale.shape[0]), add=bool(shift.shape[0]))
    each = y.size // (out_h * out_w)  # samples and channels
    return MAC * (each * _pairs(geometry, width, up(out_w, EACH) * EACH)) + after * y.size


def _grad_x_executes(items, dx, dy, mask, scale, w, geometry) -> Ops:
    height, width, _, out_w, *_ = geometry
    each = dx.size // (height * width)
    return MAC * (each * _pairs(geometry, up(width, EACH) * EACH, out_w)) + (
        MUL * dx.size if scale.shape[0] else NOTHING
    )


def _grad_w_executes(items, dw, dy, mask, scale, kept, x, geometry, length) -> Ops:
    _, width, out_h, out_w, *_ = geometry
    each = dy.shape[0] // (out_h * out_w) * x.shape[1]
    return MAC * (each * _pairs(geometry, width, out_w)) + (MUL * dw.size if scale.shape[0] else NOTHING)


FORWARD = executes(_forward_executes)(Unrolled(forward, 5))
GRAD_X = executes(_grad_x_executes)(Unrolled(grad_x, 5))
GRAD_W = executes(_grad_w_executes)(Unrolled(grad_w, 6))
