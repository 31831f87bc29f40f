"""Products of gradient filtering on whole numbers, for `quantized`: patch means and sums as whole numbers of 8 bits.

    dx on the whole patch (u,v) = s_g[n]·s_w̃·Σ_k g̃_q[n,u,v,k]·w̃_q[c,k]                       patch_grad, …_dilated
    dw[r,s,c,k] = s_x̃·Σ_n s_g[n]·Σ_{u,v} x̃_q[n,u,v,c]·g̃_q[n,u,v,k] for every (r,s)          patch_grad_w

Supplement H of arXiv 2301.00330 filters 8-bit training; its order of steps was not at hand. Our reading: the means g̃
and the sums x̃ and w̃ are computed with floats, then quantized, so that their rounding is that of one product.
Dimensions: those of `gradient_filter`. Any float dtype.
"""

import numpy as np

from ..kernels.passes import declare
from ..kernels.rounding import LEVELS, fits
from . import gradient_filter
from .quantized import stands_for

SHAPES = {
    "x_sum_q": "int8: N U V C", "w_sum_q": "int8: C/G K", "w_q": "int8: R S C/G K",
    "dy_mean_q": "int8|int16: N U V K", "dy_mean_scale": "N", "x_sum_scale": "1", "w_sum_scale": "1", "w_scale": "1",
    "dx_patch": "N U V C", "dw_patch": "C/G K",
}  # fmt: skip


def fits_channels(sizes, attrs):
    """Nothing follows; ShapeError where a sum over taps and channels may leave 32 bits."""
    if "K" in sizes:
        terms = sizes.get("R", 1) * sizes.get("S", 1) * (sizes["K"] // sizes.get("G", 1))
        fits(terms, LEVELS, "R·S·K/G" if "R" in sizes else "K/G")
    return {}


def fits_rows(sizes, attrs):
    """Nothing follows; ShapeError where a sum over a row of patches may leave 32 bits."""
    return fits(sizes["V"], attrs["levels"], "the columns V of patches") if "V" in sizes else {}


@stands_for(gradient_filter.patch_grad)
@declare(SHAPES, items="N U V C", writes="dx_patch", derive=fits_channels, sums="K/G")
def patch_grad(t, dx_patch, dy_mean_q, w_sum_q, dy_mean_scale, w_sum_scale):
    """Gradient of x on a whole patch, (N, U, V, C), as `gradient_filter.patch_grad` gives it, of quantized operands.

    From dy_mean_q, (N, U, V, K), w_sum_q, (C/G, K), dy_mean_scale, (N,), and w_sum_scale, (1,). G must be given.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]; in a patch without border every tap meets the same mean dy
    rest, c = divmod(t, dx_patch.shape[3])
    rest, v = divmod(rest, dx_patch.shape[2])
    n, u = divmod(rest, dx_patch.shape[1])
    depth = w_sum_q.shape[0]
    width = w_sum_q.shape[1] * depth // dx_patch.shape[3]  # output channels of a group
    first = c // depth * width
    total = np.int32(w_sum_q.dtype.type(0))
    for k in range(first, first + width):
        total = np.int32(total + np.int32(dy_mean_q[n, u, v, k]) * np.int32(w_sum_q[c % depth, k]))
    dx_patch[n, u, v, c] = dy_mean_scale[n] * w_sum_scale[0] * dx_patch.dtype.type(total)


@stands_for(gradient_filter.patch_grad_dilated)
@declare(SHAPES, items="N U V C", writes="dx_patch", derive=fits_channels, alike=gradient_filter.GRID, sums="K/G")
def patch_grad_dilated(t, dx_patch, dy_mean_q, w_q, dy_mean_scale, w_scale, patch=(2, 2), dilation=(1, 1)):
    """Gradient of x on a whole patch, (N, U, V, C), for a dilation d ≥ r, of quantized operands.

    As `gradient_filter.patch_grad_dilated`, from dy_mean_q, (N, U, V, K), w_q, (R, S, C/G, K), dy_mean_scale, (N,), and
    w_scale, (1,). G must be given.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]; a tap at d ≥ r falls d//r patches further on
    rest, c = divmod(t, dx_patch.shape[3])
    rest, v = divmod(rest, dx_patch.shape[2])
    n, u = divmod(rest, dx_patch.shape[1])
    depth = w_q.shape[2]
    width = w_q.shape[3] * depth // dx_patch.shape[3]
    first = c // depth * width
    down = dilation[0] // patch[0] if dilation[0] > 1 else 0
    right = dilation[1] // patch[1] if dilation[1] > 1 else 0
    total = np.int32(w_q.dtype.type(0))
    for r in range(w_q.shape[0]):
        i = u + down * (w_q.shape[0] - 1) // 2 - r * down
        if 0 <= i < dy_mean_q.shape[1]:
            for s in range(w_q.shape[1]):
                j = v + right * (w_q.shape[1] - 1) // 2 - s * right
                if 0 <= j < dy_mean_q.shape[2]:
                    for k in range(first, first + width):
                        total = np.int32(total + np.int32(dy_mean_q[n, i, j, k]) * np.int32(w_q[r, s, c % depth, k]))
    dx_patch[n, u, v, c] = dy_mean_scale[n] * w_scale[0] * dx_patch.dtype.type(total)


@stands_for(gradient_filter.patch_grad_w)
@declare(SHAPES, items="C/G K", writes="dw_patch", derive=fits_rows, sums="N", adds="N")
def patch_grad_w(t, dw_patch, dy_mean_q, x_sum_q, dy_mean_scale, x_sum_scale, levels=LEVELS):
    """Gradient of w at every tap, (C/G, K), as `gradient_filter.patch_grad_w` gives it, of quantized operands.

    From dy_mean_q, (N, U, V, K), whose largest is `levels`, x_sum_q, (N, U, V, C), dy_mean_scale, (N,), and
    x_sum_scale, (1,). G must be given.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]; in a patch without border every tap meets the same sum of x
    c, k = divmod(t, dw_patch.shape[1])
    depth = dw_patch.shape[0]
    channel = k // (dw_patch.shape[1] * depth // x_sum_q.shape[3]) * depth + c
    total = dw_patch.dtype.type(0)
    for n in range(x_sum_q.shape[0]):
        whole = np.int64(x_sum_q.dtype.type(0))
        for u in range(x_sum_q.shape[1]):
            row = np.int32(x_sum_q.dtype.type(0))
            for v in range(x_sum_q.shape[2]):
                row = np.int32(row + np.int32(x_sum_q[n, u, v, channel]) * np.int32(dy_mean_q[n, u, v, k]))
            whole += row
        total += dy_mean_scale[n] * dw_patch.dtype.type(whole)
    dw_patch[c, k] = x_sum_scale[0] * total
