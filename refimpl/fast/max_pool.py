"""Max pooling on the CPU: maxima and their places in one sweep over rows of windows, channels innermost."""

import numpy as np
from numba import prange

from ..kernel import fast


@fast
def forward(y, argmax, x, window, stride, pad):
    """Write y (N, P, Q, C) and argmax (N, P, Q, C) uint8, or (0, 0, 0, 0) for none, of x (N, H, W, C).

    The place of a maximum is r·S + s; the first in row order wins, and a NaN over every number.
    """
    rows, columns, channels = y.shape[1], y.shape[2], y.shape[3]
    keep = argmax.shape[0] > 0
    for t in prange(y.shape[0] * rows):
        n, p = divmod(np.int64(t), rows)
        top = p * stride[0] - pad[0][0]
        for q in range(columns):
            left = q * stride[1] - pad[1][0]
            first = True
            for r in range(max(0, -top), min(window[0], x.shape[1] - top)):
                for s in range(max(0, -left), min(window[1], x.shape[2] - left)):
                    place = r * window[1] + s
                    for c in range(channels):
                        v = x[n, top + r, left + s, c]
                        if first or (v > y[n, p, q, c]) | (v != v):
                            y[n, p, q, c] = v
                            if keep:
                                argmax[n, p, q, c] = place
                    first = False


@fast
def grad_x(dx, dy, argmax, window, stride, pad):
    """Write dx (N, H, W, C) of dy and argmax (N, P, Q, C): a sample an item, so no two items add to one place."""
    for t in prange(dx.shape[0]):
        n = np.int64(t)
        dx[n] = 0
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                top, left = p * stride[0] - pad[0][0], q * stride[1] - pad[1][0]
                for c in range(dy.shape[3]):
                    place = np.int64(argmax[n, p, q, c])
                    dx[n, top + place // window[1], left + place % window[1], c] += dy[n, p, q, c]
