"""Max pooling, a row of the map at a time: taps in the outer loops, channels in the inner one, which vectorises.

Letters and the meaning of argmax as in `ops.max_pool`.
"""

from collections.abc import Mapping

import numpy as np
from numba import prange

from ...compiler.executed import ADD, NOTHING, executes
from ...kernels.geometry import inside
from ...kernels.kernel import fast


def geometry(attrs: Mapping) -> tuple[int, ...]:
    """(window_h, window_w, stride_h, stride_w, top, left) as the kernels take them."""
    return (*attrs["window"], *attrs["stride"], attrs["pad"][0][0], attrs["pad"][1][0])


def pairs(x, y, geometry) -> int:
    """Elements of x (N, H, W, C) under the windows of y (N, P, Q, C), each as often as a window lies over it."""
    window_h, window_w, stride_h, stride_w, top, left = geometry
    rows = inside(x.shape[1], window_h, y.shape[1], stride_h, 1, (top, 0)).sum()
    columns = inside(x.shape[2], window_w, y.shape[2], stride_w, 1, (left, 0)).sum()
    return x.shape[0] * int(rows) * int(columns) * x.shape[3]


@executes(lambda y, argmax, x, geometry: NOTHING)
@fast
def forward(y, argmax, x, geometry):
    """Output y, (N, P, Q, C), and, where it is not empty, argmax, uint8 (N, P, Q, C), from x, (N, H, W, C)."""
    window_h, window_w, stride_h, stride_w, top, left = geometry
    height, across, width = y.shape[1], y.shape[2], y.shape[3]
    high, wide = x.shape[1], x.shape[2]
    keep = argmax.shape[0] > 0
    zero = y.dtype.type(0)
    for t in prange(y.shape[0] * height):
        n, p = np.int64(t) // height, np.int64(t) % height
        h0 = p * stride_h - top
        r0, r1 = max(0, -h0), min(window_h, high - h0)
        for q in range(across):
            col0 = q * stride_w - left
            s0, s1 = max(0, -col0), min(window_w, wide - col0)
            if r0 >= r1 or s0 >= s1:  # nothing of the map under the window
                for c in range(width):
                    y[n, p, q, c] = zero
                if keep:
                    for c in range(width):
                        argmax[n, p, q, c] = 0
                continue
            for c in range(width):
                y[n, p, q, c] = x[n, h0 + r0, col0 + s0, c]
            if keep:
                for c in range(width):
                    argmax[n, p, q, c] = r0 * window_w + s0
            for r in range(r0, r1):
                for s in range(s0, s1):
                    place = np.uint8(r * window_w + s)
                    if keep:
                        for c in range(width):
                            value, best = x[n, h0 + r, col0 + s, c], y[n, p, q, c]
                            wins = (value > best) | (value != value)
                            y[n, p, q, c] = value if wins else best
                            argmax[n, p, q, c] = place if wins else argmax[n, p, q, c]
                    else:
                        for c in range(width):
                            value, best = x[n, h0 + r, col0 + s, c], y[n, p, q, c]
                            y[n, p, q, c] = value if (value > best) | (value != value) else best


@executes(lambda dx, dy, argmax, geometry: ADD * pairs(dx, dy, geometry))
@fast
def grad_x(dx, dy, argmax, geometry):
    """Gradient of x, (N, H, W, C), from dy and argmax, (N, P, Q, C): each row collects from the windows over it."""
    window_h, window_w, stride_h, stride_w, top, left = geometry
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
            for q in range(dy.shape[2]):
                for s in range(window_w):
                    col = q * stride_w - left + s
                    if 0 <= col and col < wide:
                        place = np.uint8(r * window_w + s)
                        for c in range(width):
                            value = dy[n, p, q, c]
                            dx[n, h, col, c] += value if argmax[n, p, q, c] == place else zero
