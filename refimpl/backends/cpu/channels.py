"""Some channels of a map or a kernel, and sums over each channel: a run of rows at a time, channels in the inner loop.

What `methods.error_map_pruning` and `methods.sparse_update` do beside the products.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes
from ...kernels.kernel import fast

ROWS = 256  # rows of a tile: enough to be worth a thread


@executes(lambda out, x, index: NOTHING)
@fast
def take(out, x, index):
    """Output out, (A, B, C, L): the channels index, (L,), of x, (A, B, C, K)."""
    width, kept = x.shape[3], index.shape[0]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    source, target = x.reshape(-1), out.reshape(-1)
    for t in prange((rows + ROWS - 1) // ROWS):
        first = np.int64(t) * ROWS
        for row in range(first, min(first + ROWS, rows)):
            into, of = target[row * kept : (row + 1) * kept], source[row * width : (row + 1) * width]
            for l in range(kept):
                into[l] = of[index[l]]


@executes(lambda out, kept, x, rank: NOTHING)
@fast
def spread(out, kept, x, rank):
    """Output out, (A, B, C, K): x, (A, B, C, L), at the channels of rank, (K,), below L, else 0; scratch kept, (L,)."""
    width, count = out.shape[3], x.shape[3]
    rows = out.shape[0] * out.shape[1] * out.shape[2]
    source, target = x.reshape(-1), out.reshape(-1)
    zero = out.dtype.type(0)
    kept[:] = 0  # scores that are not numbers give equal ranks and leave places open
    for k in range(width):
        if rank[k] < count:
            kept[rank[k]] = k
    for t in prange((rows + ROWS - 1) // ROWS):
        first = np.int64(t) * ROWS
        for row in range(first, min(first + ROWS, rows)):
            into, of = target[row * width : (row + 1) * width], source[row * count : (row + 1) * count]
            into[:] = zero  # of whole vectors: half the time of asking each channel for its rank
            for l in range(count):
                into[kept[l]] = of[l]


def score_executes(scores, partials, dy, w, gamma_w, gamma_dy) -> Ops:
    """Two sums by slices, of which each is weighed, and the sum of the slices."""
    samples = -(-dy.shape[0] // partials.shape[0])
    slices = -(-dy.shape[0] // samples)
    return MUL + ADD * dy.size + MAC * w.size + (MUL + ADD) * (slices * scores.size)


@executes(score_executes)
@fast
def score(scores, partials, dy, w, gamma_w, gamma_dy):
    """Score of each channel, (K,), from dy, (N, P, Q, K), and w, (R, S, D, K); scratch partials, (slices, K)."""
    samples = (dy.shape[0] + partials.shape[0] - 1) // partials.shape[0]
    slices = (dy.shape[0] + samples - 1) // samples
    pixels, width = dy.shape[1] * dy.shape[2], dy.shape[3]
    taps = w.shape[0] * w.shape[1] * w.shape[2]
    error, kernel, parts = dy.reshape(-1), w.reshape(-1), partials.reshape(-1)
    of_kernel = gamma_w * scores.dtype.type(dy.shape[0])
    for t in prange(slices):
        item = np.int64(t)
        part = parts[item * width : (item + 1) * width]
        part[:] = 0
        for row in range(item * samples * pixels, min((item + 1) * samples, dy.shape[0]) * pixels):
            of = error[row * width : (row + 1) * width]
            for k in range(width):
                part[k] += abs(of[k])
        for k in range(width):
            part[k] *= gamma_dy
        for tap in range(taps * item // slices, taps * (item + 1) // slices):
            of = kernel[tap * width : (tap + 1) * width]
            for k in range(width):
                part[k] += of_kernel * abs(of[k])
    for k in range(width):
        total = scores.dtype.type(0)
        for item in range(slices):
            total += parts[item * width + k]
        scores[k] = total
