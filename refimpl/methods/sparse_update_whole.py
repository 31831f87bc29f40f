"""Sparse update in whole numbers of a convolution (`ops.quantized_conv2d`), for `sparse_update`: arXiv 2206.15472.

    x_chosen: the M chosen input channels of x, 8 bits each, all that is stored of it     take_x
    dw of the chosen channels: quantized_conv2d.grad_w on x_chosen, with groups            grad_w
    w at the chosen channels ← a step of `ops.quantized_sgd`                               update

That paper updates fixed channels of fixed layers, which a search finds before. Our
reading: the channels are those of `sparse_update`, the same as those of the float net, whose weights are w_scale·w.
Dimensions: those of `sparse_update`, and L scales of w: one for all output channels, or one for each.
"""

import numpy as np

from ..kernels.geometry import CONV_TAP
from ..kernels.passes import declare
from ..kernels.random import words
from ..kernels.rounding import LEVELS, WORDS, stepped
from ..ops.quantized_conv2d import fits_rows

SHAPES = {
    "x": "int8: N H W C", "w": "int8: R S C/G K", "w_error": "int8: N P Q K", "w_error_scale": "N",
    "x_chosen": "int8: N H W M", "dw": "R S M K/G", "order": "int32: C", "chosen": "int32: M", "lr": "1", "clip": "1",
    "scale": "L", "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip


@declare(SHAPES, items="N H W M", writes="x_chosen", indices={"chosen": "C"})
def take_x(t, x_chosen, x, chosen):
    """Chosen channels of x, (N, H, W, M), from x, (N, H, W, C), and chosen, (M,)."""
    rest, m = divmod(t, x_chosen.shape[3])
    rest, col = divmod(rest, x_chosen.shape[2])
    n, h = divmod(rest, x_chosen.shape[1])
    x_chosen[n, h, col, m] = x[n, h, col, chosen[m]]


@declare(
    SHAPES, items="R S M K/G", writes="dw", derive=fits_rows, alike=CONV_TAP, sums="N", adds="N",
    indices={"chosen": "C"},
)  # fmt: skip
def grad_w(
    t, dw, w_error, x_chosen, chosen, order, w_error_scale, stride=(1, 1), dilation=(1, 1),
    pad=((0, 0), (0, 0)), x_zero=0,
):  # fmt: skip
    """Gradient of the real weights at the chosen channels, (R, S, M, K/G), with groups.

    From w_error, (N, P, Q, K), x_chosen, (N, H, W, M), chosen, (M,), and w_error_scale, (N,); order, (C,), tells C.
    """
    # forward: sum[n,p,q,k] = b[k] + Σ_{r,s,c} (x[n,h,col,c] − x_zero)·w[r,s,c,k], h = p·stride − top + r·dilation
    rest, j = divmod(t, dw.shape[3])
    rest, m = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    groups = w_error.shape[3] // dw.shape[3]
    k = chosen[m] // (order.shape[0] // groups) * dw.shape[3] + j
    total = dw.dtype.type(0)
    for n in range(x_chosen.shape[0]):
        whole = np.int64(x_chosen.dtype.type(0))
        for p in range(w_error.shape[1]):
            h = p * stride[0] - pad[0][0] + r * dilation[0]
            if 0 <= h < x_chosen.shape[1]:
                row = np.int32(x_chosen.dtype.type(0))
                for q in range(w_error.shape[2]):
                    col = q * stride[1] - pad[1][0] + s * dilation[1]
                    if 0 <= col < x_chosen.shape[2]:
                        value = np.int32(x_chosen[n, h, col, m])
                        if x_zero != 0:
                            value = value - x_zero
                        row = np.int32(row + value * np.int32(w_error[n, p, q, k]))
                whole += row
        total += w_error_scale[n] * dw.dtype.type(whole)
    dw[r, s, m, j] = total


@declare(SHAPES, items="R S M K/G", writes="w", inplace="w", indices={"chosen": "C"})
def update(
    t, w, dw, chosen, lr, scale, step, seed, clip=None, weight_decay=0.0, scaled=True, most=LEVELS, stream=0
):  # fmt: skip
    """New w, (R, S, C/G, K), at the input channels in chosen, (M,), from dw, (R, S, M, K/G), and scale, (L,).

    Sparse update in whole numbers: a step of `ops.quantized_sgd`, drawn from the number of the element of dw. lr, clip,
    step and seed: (1,).
    """
    rest, j = divmod(t, dw.shape[3])
    rest, m = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    c = chosen[m] % w.shape[2]
    k = chosen[m] // w.shape[2] * dw.shape[3] + j
    gradient = dw[r, s, m, j]
    if clip.shape[0]:
        gradient *= clip[0]
    draw, _ = words(seed[0], stream, step[0], t)
    moved = stepped(
        w[r, s, c, k], gradient, lr[0], scale[k % scale.shape[0]], draw, dw.dtype.type(WORDS), scaled, weight_decay,
        most, dw, w,
    )  # fmt: skip
    w[r, s, c, k] = np.int8(moved)
