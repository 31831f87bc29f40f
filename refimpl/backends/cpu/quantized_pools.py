"""Poolings of whole numbers, LANES channels at a time."""

import numpy as np
from numba import prange

from ...compiler.executed import IADD, IMUL, NOTHING, Ops, executes
from ...kernels.kernel import fast
from . import tiles
from .integers import every, larger, narrow, requantized_once, requantized_twice, smaller, widen
from .simd import LANES, address


@executes(lambda y, x, geometry, low, high: NOTHING)
@fast
def maximum(y, x, geometry, low, high):
    """Write y (N, P, Q, C), the maximum of each window of x (N, H, W, C), saturated; geometry: of `max_pool`."""
    window_h, window_w, stride_h, stride_w, top, left = geometry
    channels = x.shape[3]
    for t in prange(y.shape[0] * y.shape[1]):
        n, p = divmod(np.int64(t), y.shape[1])
        for q in range(y.shape[2]):
            to = ((n * y.shape[1] + p) * y.shape[2] + q) * channels
            for c in range(0, channels, LANES):
                lanes, found, best = min(LANES, channels - c), False, every(-128)
                for r in range(window_h):
                    h = p * stride_h - top + r
                    if 0 <= h and h < x.shape[1]:
                        for s in range(window_w):
                            col = q * stride_w - left + s
                            if 0 <= col and col < x.shape[2]:
                                found = True
                                at = ((n * x.shape[1] + h) * x.shape[2] + col) * channels + c
                                best = larger(best, widen(address(x), at, lanes))
                best = best if found else every(0)  # nothing of the map under the window
                narrow(address(y), to + c, smaller(larger(best, every(low)), every(high)), lanes)


def mean_executes(y, x, x_zero, multiplier, shift, y_zero, low, high, twice) -> Ops:
    """Sums of whole vectors, requantized."""
    vectors = x.shape[0] * tiles.ceil_div(x.shape[3], LANES) * LANES
    return (IADD * (x.shape[1] * x.shape[2]) + IMUL + IADD * (6 if twice else 4)) * vectors


@executes(mean_executes)
@fast
def mean(y, x, x_zero, multiplier, shift, y_zero, low, high, twice):
    """Write y (N, C), the mean of each map of x (N, H, W, C), as `ops.quantized_global_avg_pool` states it."""
    pixels, channels = x.shape[1] * x.shape[2], x.shape[3]
    blocks = (channels + LANES - 1) // LANES
    for t in prange(x.shape[0] * blocks):
        n, block = divmod(np.int64(t), blocks)
        c = block * LANES
        lanes, total = min(LANES, channels - c), every(-x_zero * pixels)
        for pixel in range(pixels):
            total = total + widen(address(x), (n * pixels + pixel) * channels + c, lanes)
        m, s = every(multiplier), every(shift)
        if twice:
            narrow(address(y), n * channels + c, requantized_twice(total, m, s, y_zero, low, high), lanes)
        else:
            narrow(address(y), n * channels + c, requantized_once(total, m, s, y_zero, low, high), lanes)
