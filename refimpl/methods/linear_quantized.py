"""Products of a linear layer on whole numbers, for `quantized`, with the same scales and roundings as a convolution's.

    y[n,m,k] = b[k] + s_x·s_w·Σ_d x_q[n,m,d]·w_q[d,k]                 forward
    dx[n,m,d] = s_dy[n]·s_w·Σ_k dy_q[n,m,k]·w_q[d,k]                   grad_x
    dw[d,k] = s_x·Σ_n s_dy[n]·Σ_m x_q[n,m,d]·dy_q[n,m,k]               grad_w

The inner sums are of whole numbers in 32 bits. Our reading: a sample is a sample whatever its rank, so that of x of
more than two axes, such as tokens, all rows of a sample share one scale.
Dimensions: N samples, M rows of a sample (the axes of x between the first and the last), D input and K output features.
Any float dtype.
"""

import numpy as np

from ..kernels.passes import declare
from ..kernels.rounding import LEVELS, fits
from .layer import DENSE, LINEAR
from .quantized import stands_for

SHAPES = {
    "x_q": "int8: N M* D", "w_q": "int8: D K", "dy_q": "int8|int16: N M* K", "b": "K", "y": "N M* K",
    "x_scale": "1", "w_scale": "1", "dy_scale": "N", "dx": "N M* D", "dw": "D K",
}  # fmt: skip


def fits_inputs(sizes, attrs):
    """Nothing follows; ShapeError where a sum over input features may leave 32 bits."""
    return fits(sizes["D"], LEVELS, "D") if "D" in sizes else {}


def fits_outputs(sizes, attrs):
    """Nothing follows; ShapeError where a sum over output features may leave 32 bits."""
    return fits(sizes["K"], LEVELS, "K") if "K" in sizes else {}


def fits_rows(sizes, attrs):
    """Nothing follows; ShapeError where a sum over the rows of a sample may leave 32 bits."""
    return fits(sizes["M"], attrs["levels"], "the rows M of a sample of dy") if "M" in sizes else {}


@stands_for(DENSE[LINEAR]["y"])
@declare(SHAPES, items="N M K", writes="y", derive=fits_inputs, sums="D")
def forward(t, y, x_q, w_q, x_scale, w_scale, b=None):
    """Output y, (N, M, K), from x_q, (N, M, D), w_q, (D, K), their scales, (1,), and b, (K,)."""
    rest, k = divmod(t, y.shape[2])
    n, m = divmod(rest, y.shape[1])
    total = np.int32(x_q.dtype.type(0))
    for d in range(x_q.shape[2]):
        total = np.int32(total + np.int32(x_q[n, m, d]) * np.int32(w_q[d, k]))
    value = x_scale[0] * w_scale[0] * y.dtype.type(total)
    y[n, m, k] = value + b[k] if b.shape[0] else value


@stands_for(DENSE[LINEAR]["dx"])
@declare(SHAPES, items="N M D", writes="dx", derive=fits_outputs, sums="K", adds="K")
def grad_x(t, dx, dy_q, w_q, dy_scale, w_scale):
    """Gradient of x, (N, M, D), from dy_q, (N, M, K), w_q, (D, K), dy_scale, (N,), and w_scale, (1,)."""
    # forward: y[n,m,k] = b[k] + Σ_d x[n,m,d]·w[d,k]
    rest, d = divmod(t, dx.shape[2])
    n, m = divmod(rest, dx.shape[1])
    total = np.int32(w_q.dtype.type(0))
    for k in range(w_q.shape[1]):
        total = np.int32(total + np.int32(dy_q[n, m, k]) * np.int32(w_q[d, k]))
    dx[n, m, d] = dy_scale[n] * w_scale[0] * dx.dtype.type(total)


@stands_for(DENSE[LINEAR]["dw"])
@declare(SHAPES, items="D K", writes="dw", derive=fits_rows, sums="N", adds="N")
def grad_w(t, dw, dy_q, x_q, dy_scale, x_scale, levels=LEVELS):
    """Gradient of w, (D, K), from dy_q, (N, M, K), x_q, (N, M, D), dy_scale, (N,), and x_scale, (1,).

    levels: the largest of dy_q.
    """
    # forward: y[n,m,k] = b[k] + Σ_d x[n,m,d]·w[d,k]
    d, k = divmod(t, dw.shape[1])
    total = dw.dtype.type(0)
    for n in range(x_q.shape[0]):
        whole = np.int32(x_q.dtype.type(0))
        for m in range(x_q.shape[1]):
            whole = np.int32(whole + np.int32(x_q[n, m, d]) * np.int32(dy_q[n, m, k]))
        total += dy_scale[n] * dw.dtype.type(whole)
    dw[d, k] = x_scale[0] * total
