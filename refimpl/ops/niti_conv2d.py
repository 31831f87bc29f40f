"""2-D convolution in whole numbers that share exponents, forwards and backwards: 8 bits, sums in 32.

    sums[n,p,q,k] = b[k]·2^(−x_e) + Σ_{r,s,c} x[n, p·stride − top + r·dilation, …, g·C/G + c]·w[r,s,c,k]
    y·2^y_e ≈ sums·2^(x_e + w_e),    dx·2^dx_e ≈ (Σ_{r,s,k} dy·w)·2^(dy_e + w_e)       narrowed by `shared_exponent`
    dw[r,s,c,k] = Σ_{n,p,q} x·dy,    db[k] = Σ_{n,p,q} dy                               left in 32 bits for the update

with taps and groups as in `conv2d`. Wang et al. 2020 (NITI, arXiv 2009.13108). [second-hand] all of it but this: [ours]
a bias is of 16 bits and of the exponent of w; it is rounded to the nearest where x is coarser, and cut off at ±2^30.
y is rounded to the nearest, dx as the step says. A sum that could leave 32 bits is refused.
Dimensions: N samples, H W input rows and columns, C input channels, K output channels, R S kernel rows and columns,
P Q output rows and columns, G groups (G = C is depthwise).
"""

import numpy as np

from ..kernels.geometry import CONV_MAP, CONV_OUT, CONV_TAP, conv_derive
from ..kernels.passes import Bound, declare
from ..kernels.random import ROUNDING
from ..kernels.shared_exponent import LIMIT, aligned, check_terms
from .shared_exponent import most, narrow, settle

SHAPES = {
    "x": "int8: N H W C", "x_exponent": "int32: 1", "w": "int8: R S C/G K", "w_exponent": "int32: 1", "b": "int16: K",
    "sums": "int32: N P Q K", "sums_most": "int32: N", "y_shift": "int32: 1", "y": "int8: N P Q K",
    "y_exponent": "int32: 1", "dy": "int8: N P Q K", "dy_exponent": "int32: 1", "dx_sums": "int32: N H W C",
    "dx_most": "int32: N", "dx_shift": "int32: 1", "dx": "int8: N H W C", "dx_exponent": "int32: 1",
    "dw": "int32: R S C/G K", "db": "int32: K", "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip
INPUTS = ("x", "x_exponent")
OUTPUTS = ("y", "y_exponent")
PARAMS = ("w", "b")
TRAINS = "counted"
BIAS = "b"
HOST = {"step": "update", "seed": "seed"}
STREAM = ROUNDING


def derive(sizes, attrs):
    """P, Q and G; ShapeError where a sum of the forward pass may leave 32 bits."""
    found = conv_derive(sizes, attrs)
    if {"R", "S", "C"} <= sizes.keys():
        check_terms(sizes["R"] * sizes["S"] * (sizes["C"] // sizes.get("G", 1)), "R·S·C/G", LIMIT)
    return found


def derive_x(sizes, attrs):
    """P, Q and G; ShapeError where a sum over taps and output channels may leave 32 bits."""
    found = conv_derive(sizes, attrs)
    if {"R", "S", "K"} <= sizes.keys():
        check_terms(sizes["R"] * sizes["S"] * (sizes["K"] // sizes.get("G", 1)), "R·S·K/G")
    return found


def derive_w(sizes, attrs):
    """P, Q and G; ShapeError where a sum over the maps of a mini-batch may leave 32 bits."""
    found = conv_derive(sizes, attrs)
    out = found | {letter: n for letter, n in sizes.items() if letter in "NPQ"}
    if {"N", "P", "Q"} <= out.keys():
        check_terms(out["N"] * out["P"] * out["Q"], "N·P·Q, the pixels of a mini-batch,")
    return found


@declare(SHAPES, items="N P Q K", writes="sums", derive=derive, alike=CONV_OUT, sums="C/G")
def accumulate(
    t, sums, x, w, x_exponent, b=None, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))
):  # fmt: skip
    """The sums, (N, P, Q, K), from x, (N, H, W, C), w, (R, S, C/G, K), x_exponent, (1,), and b, (K,)."""
    rest, k = divmod(t, sums.shape[3])
    rest, q = divmod(rest, sums.shape[2])
    n, p = divmod(rest, sums.shape[1])
    depth = w.shape[2]
    first = k // (w.shape[3] * depth // x.shape[3]) * depth  # first input channel of k's group
    total = np.int32(x.dtype.type(0))
    for r in range(w.shape[0]):
        h = p * stride[0] - pad[0][0] + r * dilation[0]
        if 0 <= h < x.shape[1]:
            for s in range(w.shape[1]):
                col = q * stride[1] - pad[1][0] + s * dilation[1]
                if 0 <= col < x.shape[2]:
                    for c in range(depth):
                        total = np.int32(total + np.int32(x[n, h, col, first + c]) * np.int32(w[r, s, c, k]))
    sums[n, p, q, k] = np.int32(total + aligned(b[k], 0, x_exponent[0])) if b.shape[0] else total


@declare(SHAPES, items="N H W C", writes="dx_sums", derive=derive_x, alike=CONV_MAP, sums="K/G")
def grad_x(t, dx_sums, dy, w, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Sums of the gradient of x, (N, H, W, C), from dy, (N, P, Q, K), and w, (R, S, C/G, K).

    H and W (and G) must be given: several sizes give one P.
    """
    # forward: sums[n,p,q,k] = … + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, c = divmod(t, dx_sums.shape[3])
    rest, col = divmod(rest, dx_sums.shape[2])
    n, h = divmod(rest, dx_sums.shape[1])
    depth = w.shape[2]
    width = w.shape[3] * depth // dx_sums.shape[3]  # output channels of a group
    first = c // depth * width
    total = np.int32(w.dtype.type(0))
    for r in range(w.shape[0]):
        p, off = divmod(h + pad[0][0] - r * dilation[0], stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            for s in range(w.shape[1]):
                q, off = divmod(col + pad[1][0] - s * dilation[1], stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    for k in range(first, first + width):
                        total = np.int32(total + np.int32(dy[n, p, q, k]) * np.int32(w[r, s, c % depth, k]))
    dx_sums[n, h, col, c] = total


@declare(SHAPES, items="R S C/G K", writes="dw", derive=derive_w, alike=CONV_TAP, sums="N", adds="N")
def grad_w(t, dw, dy, x, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of w, (R, S, C/G, K), from dy, (N, P, Q, K), and x, (N, H, W, C).

    R and S (and G) must be given: several sizes give one P.
    """
    # forward: sums[n,p,q,k] = … + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, k = divmod(t, dw.shape[3])
    rest, c = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    depth = dw.shape[2]
    channel = k // (dw.shape[3] * depth // x.shape[3]) * depth + c
    total = np.int32(x.dtype.type(0))
    for n in range(x.shape[0]):
        for p in range(dy.shape[1]):
            h = p * stride[0] - pad[0][0] + r * dilation[0]
            if 0 <= h < x.shape[1]:
                for q in range(dy.shape[2]):
                    col = q * stride[1] - pad[1][0] + s * dilation[1]
                    if 0 <= col < x.shape[2]:
                        total = np.int32(total + np.int32(x[n, h, col, channel]) * np.int32(dy[n, p, q, k]))
    dw[r, s, c, k] = total


@declare(SHAPES, items="K", writes="db", sums="N", adds="N")
def grad_b(t, db, dy):
    """Gradient of b, (K,), from dy, (N, P, Q, K)."""
    # forward: sums[n,p,q,k] = b[k]·2^(−x_e) + …
    total = np.int32(dy.dtype.type(0))
    for n in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                total = np.int32(total + np.int32(dy[n, p, q, t]))
    db[t] = total


BOUND = (
    Bound(most, {"v": "sums", "most": "sums_most"}),
    Bound(
        settle, {
            "most": "sums_most", "shift": "y_shift", "exponent": "y_exponent", "first": "x_exponent",
            "second": "w_exponent",
        },
    ),
    Bound(
        narrow, {"v": "sums", "q": "y", "shift": "y_shift", "step": "", "seed": ""},
        attrs={"stochastic": False, "pseudo": False},
    ),
    Bound(most, {"v": "dx_sums", "most": "dx_most"}),
    Bound(
        settle, {
            "most": "dx_most", "shift": "dx_shift", "exponent": "dx_exponent", "first": "dy_exponent",
            "second": "w_exponent",
        },
    ),
    Bound(narrow, {"v": "dx_sums", "q": "dx", "shift": "dx_shift"}),
)  # fmt: skip
