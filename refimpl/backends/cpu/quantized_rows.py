"""Three convolutions in whole numbers row by row: the maps between them are never there as a whole.

A first convolution, a depthwise one and a 1×1 one make up a block of a MobileNet. Of what the first one makes a ring of
as many rows is kept as the depthwise kernel has, of what that makes one pixel. Every row is made once, by exact sums of
32 bits, so that the output is that of three launches to the bit. One thread works on a sample.
"""

import numpy as np
from numba import get_thread_id, prange

from ...compiler.executed import IADD, IMAC, IMUL, Ops, executes
from ...kernels.kernel import fast, inline
from ...kernels.requantize import requantized


def taps(size: int, out: int, window: int, stride: int, before: int) -> int:
    """(window, tap) pairs of an axis that lie on the map."""
    index = np.arange(out)[:, None] * stride - before + np.arange(window)
    return int(((index >= 0) & (index < size)).sum())


def rows_executes(
    y, x, w1, b1, multiplier1, shift1, w2, b2, multiplier2, shift2, w3, b3, multiplier3, shift3, ring, pixel, sums,
    geometry, numbers1, numbers2, numbers3, twice,
) -> Ops:  # fmt: skip
    """Products of the taps on the maps, x less its zero point once for all channels, and what is requantized."""
    rows, stride, top, left, deep, above, aside = geometry
    (_, height, width, depth), kept = ring.shape, y.shape[3]
    pairs = taps(x.shape[1], rows, w1.shape[0], stride, top) * taps(x.shape[2], width, w1.shape[1], stride, left)
    inner = taps(rows, y.shape[1], height, deep, above) * taps(width, y.shape[2], w2.shape[1], deep, aside)
    pixels = y.shape[1] * y.shape[2]
    total = (IMAC * depth + IADD) * (pairs * x.shape[3]) + (IMAC + IADD) * (inner * depth)
    total += (IMAC * kept + IADD) * (pixels * depth)
    outputs = rows * width * depth + pixels * (depth + kept)
    return (total + (IMUL + IADD * (6 if twice else 4)) * outputs) * y.shape[0]


@inline
def add_products(sums, value, w):
    """sums (K,) += value·w (K,)."""
    for k in range(sums.size):
        sums[k] = np.int32(sums[k] + value * np.int32(w[k]))


@inline
def begin(sums, b):
    """sums (K,) = b (K,), or 0."""
    for k in range(sums.size):
        sums[k] = b[k] if b.size else np.int32(0)


@inline
def finish(y, sums, multiplier, shift, y_zero, low, high, twice):
    """y (K,) = sums (K,) requantized and saturated."""
    for k in range(sums.size):
        value = requantized(sums[k], multiplier[k], shift[k], twice) + y_zero
        value = value if value > low else low
        y[k] = np.int8(value if value < high else high)


@executes(rows_executes)
@fast
def three(
    y, x, w1, b1, multiplier1, shift1, w2, b2, multiplier2, shift2, w3, b3, multiplier3, shift3, ring, pixel, sums,
    geometry, numbers1, numbers2, numbers3, twice,
):  # fmt: skip
    """Write y (N, P, Q, K) from x (N, H, W, C).

    w, b, multiplier, shift: of the first convolution, the depthwise one and the last. Of each thread: ring (threads, R,
    W', D), pixel (threads, D), and sums (threads, the more of D and K). geometry: rows of the first map; stride, top
    and left of the first convolution and of the depthwise one; numbers: (x_zero, y_zero, low, high) of each.
    """
    rows, stride, top, left, deep, above, aside = geometry
    height, width, depth, kept = ring.shape[1], ring.shape[2], ring.shape[3], y.shape[3]
    (zero1, y_zero1, low1, high1), (zero2, y_zero2, low2, high2) = numbers1, numbers2
    zero3, y_zero3, low3, high3 = numbers3
    for t in prange(y.shape[0]):
        n, thread = np.int64(t), np.int64(get_thread_id())
        done = 0  # rows of the first map
        for p in range(y.shape[1]):
            until = min(p * deep - above + height, rows)
            for h in range(done, until):
                for col in range(width):
                    total = sums[thread, :depth]
                    begin(total, b1)
                    for r in range(w1.shape[0]):
                        i = h * stride - top + r
                        if i < 0 or i >= x.shape[1]:
                            continue
                        for s in range(w1.shape[1]):
                            j = col * stride - left + s
                            if j >= 0 and j < x.shape[2]:
                                for c in range(x.shape[3]):
                                    add_products(total, np.int32(np.int32(x[n, i, j, c]) - zero1), w1[r, s, c])
                    to = ring[thread, h % height, col]
                    finish(to, total, multiplier1, shift1, y_zero1, low1, high1, twice)
            done = max(done, until)
            for q in range(y.shape[2]):
                total = sums[thread, :depth]
                begin(total, b2)
                for r in range(height):
                    i = p * deep - above + r
                    if i < 0 or i >= rows:
                        continue
                    for s in range(w2.shape[1]):
                        j = q * deep - aside + s
                        if j >= 0 and j < width:
                            here, weights = ring[thread, i % height, j], w2[r, s, 0]
                            for c in range(depth):
                                value = np.int32(np.int32(here[c]) - zero2)
                                total[c] = np.int32(total[c] + value * np.int32(weights[c]))
                finish(pixel[thread], total, multiplier2, shift2, y_zero2, low2, high2, twice)
                total = sums[thread, :kept]
                begin(total, b3)
                for c in range(depth):
                    add_products(total, np.int32(np.int32(pixel[thread, c]) - zero3), w3[0, 0, c])
                finish(y[n, p, q], total, multiplier3, shift3, y_zero3, low3, high3, twice)
