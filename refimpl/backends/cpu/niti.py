"""Products of whole numbers of 8 bits in sums of 32, with whole rows of channels in the innermost loop.

The numbers are those of `ops.niti_conv2d` and `ops.niti_linear`, a layer of one group; a linear layer is a 1×1
convolution of maps of one pixel. Sums of integers do not depend on their order. Channels lie side by side in memory, so
the compiler makes vectors of the innermost loops.
"""

import numpy as np
from numba import prange

from ...compiler.executed import IADD, IMAC, Ops, executes
from ...kernels.geometry import inside
from ...kernels.kernel import fast
from ...kernels.shared_exponent import aligned

OF_BIAS = IADD * 7  # of an output whose bias is aligned and added


def geometry(attrs) -> tuple[int, ...]:
    """(stride, dilation, padding before) of rows and of columns, as the kernels take them."""
    (top, _), (left, _) = attrs["pad"]
    return (*attrs["stride"], *attrs["dilation"], top, left)


def _products(x, w, out, geometry) -> int:
    """Products of a convolution from x (N, H, W, C) by w (R, S, C, K) to out (N, P, Q, K), taps in padding left out."""
    taps = 1
    for axis in range(2):
        stride, dilation, before = (geometry[i + axis] for i in (0, 2, 4))
        there = inside(x.shape[1 + axis], w.shape[axis], out.shape[1 + axis], stride, dilation, (before, 0))
        taps *= int(np.count_nonzero(there))
    return x.shape[0] * taps * w.shape[2] * w.shape[3]


def _sums_executes(out, x, w, b, exponent, geometry) -> Ops:
    return IMAC * _products(x, w, out, geometry) + OF_BIAS * (out.size if b.size else 0)


@executes(_sums_executes)
@fast
def sums(out, x, w, b, exponent, geometry):
    """Write out (N, P, Q, K), the sums of x (N, H, W, C) and w (R, S, C, K), b (K,), its exponent that of x, (1,)."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    width = w.shape[3]
    for t in prange(out.shape[0] * out.shape[1]):
        n, p = divmod(np.int64(t), out.shape[1])
        for q in range(out.shape[2]):
            for k in range(width):
                out[n, p, q, k] = 0
            for r in range(w.shape[0]):
                h = p * stride_h - top + r * dilation_h
                if 0 <= h and h < x.shape[1]:
                    for s in range(w.shape[1]):
                        col = q * stride_w - left + s * dilation_w
                        if 0 <= col and col < x.shape[2]:
                            for c in range(w.shape[2]):
                                value = np.int32(x[n, h, col, c])
                                for k in range(width):
                                    out[n, p, q, k] += np.int32(value * np.int32(w[r, s, c, k]))
            if b.shape[0]:
                for k in range(width):
                    out[n, p, q, k] = np.int32(out[n, p, q, k] + aligned(b[k], 0, exponent[0]))


@executes(lambda dx, dy, w, geometry: IMAC * _products(dx, w, dy, geometry))
@fast
def grad_x(dx, dy, w, geometry):
    """Write dx (N, H, W, C), the sums of dy (N, P, Q, K) and w (R, S, C, K)."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    for t in prange(dx.shape[0] * dx.shape[1]):
        n, h = divmod(np.int64(t), dx.shape[1])
        for col in range(dx.shape[2]):
            for c in range(w.shape[2]):
                dx[n, h, col, c] = 0
            for r in range(w.shape[0]):
                p, off = divmod(h + top - r * dilation_h, stride_h)
                if off == 0 and 0 <= p and p < dy.shape[1]:
                    for s in range(w.shape[1]):
                        q, off = divmod(col + left - s * dilation_w, stride_w)
                        if off == 0 and 0 <= q and q < dy.shape[2]:
                            for c in range(w.shape[2]):
                                total = dx[n, h, col, c]
                                for k in range(w.shape[3]):
                                    total = np.int32(total + np.int32(dy[n, p, q, k]) * np.int32(w[r, s, c, k]))
                                dx[n, h, col, c] = total


@executes(lambda dw, dy, x, geometry: IMAC * _products(x, dw, dy, geometry))
@fast
def grad_w(dw, dy, x, geometry):
    """Write dw (R, S, C, K), the sums of dy (N, P, Q, K) and x (N, H, W, C)."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    width = dw.shape[3]
    for t in prange(dw.shape[0] * dw.shape[1] * dw.shape[2]):
        rest, c = divmod(np.int64(t), dw.shape[2])
        r, s = divmod(rest, dw.shape[1])
        for k in range(width):
            dw[r, s, c, k] = 0
        for n in range(x.shape[0]):
            for p in range(dy.shape[1]):
                h = p * stride_h - top + r * dilation_h
                if 0 <= h and h < x.shape[1]:
                    for q in range(dy.shape[2]):
                        col = q * stride_w - left + s * dilation_w
                        if 0 <= col and col < x.shape[2]:
                            value = np.int32(x[n, h, col, c])
                            for k in range(width):
                                dw[r, s, c, k] += np.int32(value * np.int32(dy[n, p, q, k]))
