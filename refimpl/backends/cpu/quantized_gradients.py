"""Gradients of convolutions in whole numbers, and their errors, in loops that the compiler makes vectors of.

Pointwise sums are of int32. Depthwise ones are of float32, in the memory of what they give: a sum of EXACT products of
two numbers of 8 bits stays below 2^24, up to which float32 holds every whole number, so that they are exact, too.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, IADD, IMAC, IMUL, MAC, MUL, Ops, executes
from ...kernels.kernel import fast
from ...kernels.random import MASK, key_of, philox
from ...kernels.rounding import WORDS, passes_bit, rounded_at_random

EXACT = 2**24 // (127 * 128)  # products of an error and a weight


@executes(lambda dx, error, w, scale: IMAC * (error.size // error.shape[3] * w.size) + MUL * dx.size)
@fast
def pointwise(dx, error, w, scale):
    """Write dx (N, P, Q, C) of a 1×1 convolution from error (N, P, Q, K), w (1, 1, C, K) and scale (N,)."""
    inputs, depth, pixels = dx.shape[3], error.shape[3], dx.shape[1] * dx.shape[2]
    dx_, error_, w_ = dx.reshape(-1), error.reshape(-1), w.reshape(-1)
    for t in prange(dx.shape[0] * pixels):
        row = np.int64(t)
        here, to, factor = error_[row * depth : (row + 1) * depth], row * inputs, scale[row // pixels]
        for c in range(inputs):
            weights, total = w_[c * depth : (c + 1) * depth], np.int32(0)
            for k in range(depth):
                total = np.int32(total + np.int32(here[k]) * np.int32(weights[k]))
            dx_[to + c] = factor * dx.dtype.type(total)


def depthwise_executes(dx, error, w, scale, geometry) -> Ops:
    """The (window, tap) pairs on the map, and the scale."""
    pairs = error.shape[0] * error.shape[3]
    for size, out, window, stride, dilation, before in zip(
        dx.shape[1:3], error.shape[1:3], w.shape[:2], geometry[:2], geometry[2:4], geometry[4:], strict=True
    ):
        index = np.arange(out)[:, None] * stride - before + np.arange(window) * dilation
        pairs *= int(((index >= 0) & (index < size)).sum())
    return MAC * pairs + MUL * dx.size


@executes(depthwise_executes)
@fast
def depthwise(dx, error, w, scale, geometry):
    """Write dx (N, H, W, C) of a depthwise convolution from error (N, P, Q, C), w (R, S, 1, C) and scale (N,).

    geometry: of `tiles.geometry`.
    """
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    channels = dx.shape[3]
    dx_, error_, w_ = dx.reshape(-1), error.reshape(-1), w.reshape(-1)
    for t in prange(dx.shape[0] * dx.shape[1]):
        n, h = divmod(np.int64(t), dx.shape[1])
        for col in range(dx.shape[2]):
            to = (np.int64(t) * dx.shape[2] + col) * channels
            total = dx_[to : to + channels]
            for c in range(channels):
                total[c] = np.float32(0)
            for r in range(w.shape[0]):
                p, off = divmod(h + top - r * dilation_h, stride_h)
                if off != 0 or p < 0 or p >= error.shape[1]:
                    continue
                for s in range(w.shape[1]):
                    q, beside = divmod(col + left - s * dilation_w, stride_w)
                    if beside == 0 and 0 <= q and q < error.shape[2]:
                        at = ((n * error.shape[1] + p) * error.shape[2] + q) * channels
                        of = (r * w.shape[1] + s) * channels
                        here, weights = error_[at : at + channels], w_[of : of + channels]
                        for c in range(channels):
                            total[c] += np.float32(here[c]) * np.float32(weights[c])
            for c in range(channels):
                total[c] *= scale[n]


def rounded_executes(error, dy, mask, slope, scale, step, seed, stream, second) -> Ops:
    """Slope and share of each element, and its draw, of which the first product is one of its number."""
    return (MUL * 2 + ADD + IADD * 2 + IMUL * 9) * error.size


@executes(rounded_executes)
@fast
def rounded(error, dy, mask, slope, scale, step, seed, stream, second):
    """Write error (N, P, Q, K) as `ops.quantized_conv2d.round_error` states it; second: by the other word of a draw."""
    channels = error.shape[3]
    pixels = error.shape[1] * error.shape[2]
    error_, dy_ = error.reshape(-1), dy.reshape(-1)
    key, draw = key_of(seed[0], stream), np.int64(step[0]) & MASK
    for t in prange(error.shape[0] * pixels):
        n, pixel = divmod(np.int64(t), pixels)
        for k in range(channels):
            e = np.int64(t) * channels + k
            first, other = philox(e & MASK, draw, key)
            value = dy_[e] * slope[k]
            value = value if passes_bit(mask, n, pixel * channels + k) else dy.dtype.type(0)
            word = other if second else first
            error_[e] = np.int8(rounded_at_random(value, scale[n], word, dy.dtype.type(WORDS), dy))
