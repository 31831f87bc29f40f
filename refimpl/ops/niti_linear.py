"""Linear layer in whole numbers that share exponents, forwards and backwards: 8 bits, sums in 32.

    sums[n,k] = b[k]·2^(−x_e) + Σ_d x[n,d]·w[d,k]
    y·2^y_e ≈ sums·2^(x_e + w_e),    dx·2^dx_e ≈ (Σ_k dy[n,k]·w[d,k])·2^(dy_e + w_e)    narrowed by `shared_exponent`
    dw[d,k] = Σ_n x·dy,    db[k] = Σ_n dy                                               left in 32 bits for the update

Sources and readings are those of `niti_conv2d`.
Dimensions: N samples, D input features, K output features.
"""

import numpy as np

from ..kernels.passes import Bound, declare
from ..kernels.random import ROUNDING
from ..kernels.shared_exponent import LIMIT, aligned, check_terms
from .shared_exponent import most, narrow, settle

SHAPES = {
    "x": "int8: N D", "x_exponent": "int32: 1", "w": "int8: D K", "w_exponent": "int32: 1", "b": "int16: K",
    "sums": "int32: N K", "sums_most": "int32: N", "y_shift": "int32: 1", "y": "int8: N K", "y_exponent": "int32: 1",
    "dy": "int8: N K", "dy_exponent": "int32: 1", "dx_sums": "int32: N D", "dx_most": "int32: N",
    "dx_shift": "int32: 1", "dx": "int8: N D", "dx_exponent": "int32: 1", "dw": "int32: D K", "db": "int32: K",
    "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip
INPUTS = ("x", "x_exponent")
OUTPUTS = ("y", "y_exponent")
PARAMS = ("w", "b")
TRAINS = "always"
BIAS = "b"
HOST = {"step": "update", "seed": "seed"}
STREAM = ROUNDING


def derive(sizes, attrs):
    """Nothing follows; ShapeError where a sum over input features may leave 32 bits."""
    if "D" in sizes:
        check_terms(sizes["D"], "D", LIMIT)
    return {}


def derive_x(sizes, attrs):
    """Nothing follows; ShapeError where a sum over output features may leave 32 bits."""
    if "K" in sizes:
        check_terms(sizes["K"], "K")
    return {}


def derive_w(sizes, attrs):
    """Nothing follows; ShapeError where a sum over a mini-batch may leave 32 bits."""
    if "N" in sizes:
        check_terms(sizes["N"], "N, the samples of a mini-batch,")
    return {}


@declare(SHAPES, items="N K", writes="sums", derive=derive, sums="D")
def accumulate(t, sums, x, w, x_exponent, b=None):
    """The sums, (N, K), from x, (N, D), w, (D, K), x_exponent, (1,), and b, (K,)."""
    n, k = divmod(t, sums.shape[1])
    total = np.int32(x.dtype.type(0))
    for d in range(x.shape[1]):
        total = np.int32(total + np.int32(x[n, d]) * np.int32(w[d, k]))
    sums[n, k] = np.int32(total + aligned(b[k], 0, x_exponent[0])) if b.shape[0] else total


@declare(SHAPES, items="N D", writes="dx_sums", derive=derive_x, sums="K", adds="K")
def grad_x(t, dx_sums, dy, w):
    """Sums of the gradient of x, (N, D), from dy, (N, K), and w, (D, K)."""
    # forward: sums[n,k] = … + Σ_d x[n,d]·w[d,k]
    n, d = divmod(t, dx_sums.shape[1])
    total = np.int32(w.dtype.type(0))
    for k in range(w.shape[1]):
        total = np.int32(total + np.int32(dy[n, k]) * np.int32(w[d, k]))
    dx_sums[n, d] = total


@declare(SHAPES, items="D K", writes="dw", derive=derive_w, sums="N", adds="N")
def grad_w(t, dw, dy, x):
    """Gradient of w, (D, K), from dy, (N, K), and x, (N, D)."""
    # forward: sums[n,k] = … + Σ_d x[n,d]·w[d,k]
    d, k = divmod(t, dw.shape[1])
    total = np.int32(x.dtype.type(0))
    for n in range(x.shape[0]):
        total = np.int32(total + np.int32(x[n, d]) * np.int32(dy[n, k]))
    dw[d, k] = total


@declare(SHAPES, items="K", writes="db", sums="N", adds="N")
def grad_b(t, db, dy):
    """Gradient of b, (K,), from dy, (N, K)."""
    # forward: sums[n,k] = b[k]·2^(−x_e) + …
    total = np.int32(dy.dtype.type(0))
    for n in range(dy.shape[0]):
        total = np.int32(total + np.int32(dy[n, t]))
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
