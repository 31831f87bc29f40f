"""Some channels of a map or a kernel, and sums over each channel: a run of rows at a time, channels in the inner loop.

What `methods.error_map_pruning` and `methods.sparse_update` do beside the products.
"""

import numpy as np
from numba import prange

from ..kernel import fast

ROWS = 256  # rows of a tile: enough to be worth a thread


@fast
def take(out, x, index):
    """Out (A, B, C, L): the channels index (L,) of x (A, B, C, K)."""
    width, kept = x.shape[3], index.shape[0]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    source, target = x.reshape(-1), out.reshape(-1)
    for t in prange((rows + ROWS - 1) // ROWS):
        first = np.int64(t) * ROWS
        for row in range(first, min(first + ROWS, rows)):
            for l in range(kept):
                target[row * kept + l] = source[row * width + index[l]]


@fast
def spread(out, x, rank):
    """Out (A, B, C, K): x (A, B, C, L) at the channels of rank (K,) below L, 0 elsewhere."""
    width, kept = out.shape[3], x.shape[3]
    rows = out.shape[0] * out.shape[1] * out.shape[2]
    source, target = x.reshape(-1), out.reshape(-1)
    zero = out.dtype.type(0)
    for t in prange((rows + ROWS - 1) // ROWS):
        first = np.int64(t) * ROWS
        for row in range(first, min(first + ROWS, rows)):
            for k in range(width):
                place = rank[k]
                target[row * width + k] = source[row * kept + place] if place < kept else zero


@fast
def score(scores, partials, dy, w, gamma_w, gamma_dy):
    """Scores (K,) of dy (N, P, Q, K) and w (R, S, D, K); partials (slices of the samples, K)."""
    samples = (dy.shape[0] + partials.shape[0] - 1) // partials.shape[0]
    slices = (dy.shape[0] + samples - 1) // samples
    pixels, width = dy.shape[1] * dy.shape[2], dy.shape[3]
    error, kernel = dy.reshape(-1), w.reshape(-1)
    for t in prange(slices):
        item = np.int64(t)
        for k in range(width):
            partials[item, k] = 0
        for row in range(item * samples * pixels, min((item + 1) * samples, dy.shape[0]) * pixels):
            for k in range(width):
                partials[item, k] += abs(error[row * width + k])
    taps = w.shape[0] * w.shape[1] * w.shape[2]
    count = scores.dtype.type(dy.shape[0])
    for k in range(width):
        norm = scores.dtype.type(0)
        for tap in range(taps):
            norm += abs(kernel[tap * width + k])
        total = scores.dtype.type(0)
        for item in range(slices):
            total += partials[item, k]
        scores[k] = gamma_w * count * norm + gamma_dy * total
