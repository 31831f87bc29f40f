"""Average pooling, a row of the map at a time: taps in the outer loops, channels in the inner one, which vectorises.

Letters as in `ops.avg_pool`; `global_` kernels are those of `ops.global_avg_pool`. geometry: of `max_pool.geometry`.
margin: of `counted_margin`, rows above and below, columns left and right of the map whose taps count too.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, NOTHING, executes
from ...kernels.kernel import fast, inline
from .max_pool import pairs


@inline
def taps(start, window, size, before, after):
    """Taps of a window from index `start` along one axis that count."""
    return min(start + window, size + after) - max(start, -before)


@executes(lambda y, x, geometry, margin: ADD * pairs(x, y, geometry))
@fast
def forward(y, x, geometry, margin):
    """Output y, (N, P, Q, C), from x, (N, H, W, C)."""
    window_h, window_w, stride_h, stride_w, top, left = geometry
    above, below, west, east = margin
    height, across, width = y.shape[1], y.shape[2], y.shape[3]
    high, wide = x.shape[1], x.shape[2]
    zero = y.dtype.type(0)
    for t in prange(y.shape[0] * height):
        n, p = np.int64(t) // height, np.int64(t) % height
        h0 = p * stride_h - top
        r0, r1 = max(0, -h0), min(window_h, high - h0)
        rows = taps(h0, window_h, high, above, below)
        for q in range(across):
            col0 = q * stride_w - left
            s0, s1 = max(0, -col0), min(window_w, wide - col0)
            count = y.dtype.type(rows * taps(col0, window_w, wide, west, east))
            for c in range(width):
                y[n, p, q, c] = zero
            for r in range(r0, r1):
                for s in range(s0, s1):
                    for c in range(width):
                        y[n, p, q, c] += x[n, h0 + r, col0 + s, c]
            for c in range(width):
                y[n, p, q, c] /= count


@executes(lambda dx, dy, geometry, margin: ADD * pairs(dx, dy, geometry))
@fast
def grad_x(dx, dy, geometry, margin):
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, C): each row collects from the windows that lie over it."""
    window_h, window_w, stride_h, stride_w, top, left = geometry
    above, below, west, east = margin
    high, wide, width = dx.shape[1], dx.shape[2], dx.shape[3]
    zero = dx.dtype.type(0)
    for t in prange(dx.shape[0] * high):
        n, h = np.int64(t) // high, np.int64(t) % high
        for col in range(wide):
            for c in range(width):
                dx[n, h, col, c] = zero
        for r in range(window_h):
            p = (h + top - r) // stride_h
            if p * stride_h != h + top - r or p < 0 or p >= dy.shape[1]:
                continue
            rows = taps(h - r, window_h, high, above, below)
            for q in range(dy.shape[2]):
                col0 = q * stride_w - left
                s0, s1 = max(0, -col0), min(window_w, wide - col0)
                count = dx.dtype.type(rows * taps(col0, window_w, wide, west, east))
                for col in range(col0 + s0, col0 + s1):
                    for c in range(width):
                        dx[n, h, col, c] += dy[n, p, q, c] / count


@executes(lambda y, x: ADD * x.size)
@fast
def global_forward(y, x):
    """Output y, (N, C), from x, (N, H, W, C)."""
    width = x.shape[3]
    count = y.dtype.type(x.shape[1] * x.shape[2])
    zero = y.dtype.type(0)
    for t in prange(x.shape[0]):
        n = np.int64(t)
        for c in range(width):
            y[n, c] = zero
        for h in range(x.shape[1]):
            for col in range(x.shape[2]):
                for c in range(width):
                    y[n, c] += x[n, h, col, c]
        for c in range(width):
            y[n, c] /= count


@executes(lambda dx, dy: NOTHING)
@fast
def global_grad_x(dx, dy):
    """Gradient of x, (N, H, W, C), from dy, (N, C)."""
    width = dx.shape[3]
    count = dx.dtype.type(dx.shape[1] * dx.shape[2])
    for t in prange(dx.shape[0]):
        n = np.int64(t)
        for h in range(dx.shape[1]):
            for col in range(dx.shape[2]):
                for c in range(width):
                    dx[n, h, col, c] = dy[n, c] / count
