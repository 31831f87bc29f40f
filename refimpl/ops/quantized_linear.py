"""Linear layer in whole numbers: int8 rows, int8 or int16 weights, sums in int32, requantized to int8 or left so.

    sums[n,k] = b[k] + Σ_d (x[n,d] − x_zero)·w[d,k]
    y[n,k] = saturated(requantized(sums[n,k], multiplier[k], shift[k]) + y_zero, low, high)

as TensorFlow Lite's FULLY_CONNECTED; scales as in `quantized_conv2d`. The sums, which are of the scale
x_scale·w_scale[k], are a second output: logits are left in 32 bits and made real numbers for the loss. Where a net
reads them alone, no y is computed.

Gradients are those of `quantized_conv2d`, with a scale of errors for each row; where y is read, dsums is dy times the
factor of requantization, 0 where y is at an end, and one bit an element is kept.
    error ≈ dsums / error_scale[n], w_error ≈ dsums / (w_scale[k]·w_error_scale[n])      int8, rounded at random
    dx[n,d] = error_scale[n]·Σ_k error·w
    dw[d,k] = Σ_n w_error_scale[n]·(x − x_zero)·w_error                of the real weights
    db[k] = Σ_n w_error_scale[n]·w_error·w_scale[k]/b_scale[k]         of the real bias
Dimensions: N rows (samples, or all axes before the last of x), D input features, K output features, B = ⌈K/8⌉ bytes of
mask, L scales of w and M of b: one for all features, or one for each.
"""

import numpy as np

from ..kernels.geometry import mask_of
from ..kernels.kernel import helper
from ..kernels.passes import declare
from ..kernels.random import ROUNDING as STREAM  # noqa: F401 (stated to the compiler)
from ..kernels.random import words
from ..kernels.requantize import requantized, saturated
from ..kernels.rounding import LEVELS, WORDS, fits, inner, larger, passes_bit, rounded_at_random, scale_of

SHAPES = {
    "x": "int8: N* D", "w": "int8|int16: D K", "b": "int32: K", "multiplier": "int32: K", "shift": "int32: K",
    "y": "int8: N* K", "sums": "int32: N* K", "dy": "N* K", "dsums": "N* K", "mask": "uint8: N* B",
    "error_most": "N*", "error_scale": "N*", "error": "int8: N* K",
    "w_error_most": "N*", "w_error_scale": "N*", "w_error": "int8: N* K", "step": "int64: 1", "seed": "int64: 1",
    "w_scale": "L", "b_scale": "M", "dx": "N* D", "dw": "D K", "db": "K",
}  # fmt: skip
OUTPUTS = ("y", "sums")
PARAMS = ("w", "b")
TRAINS = "always"
BIAS = "b"
HOST = {"step": "update", "seed": "seed"}
mask_bytes, BYTES = mask_of("K")
W_MOST = 128  # the largest magnitude of a weight of 8 bits


def fits_features(sizes, attrs):
    """Nothing follows; ShapeError where a sum of dx over output features may leave 32 bits."""
    return fits(sizes["K"], W_MOST, "K") if "K" in sizes else {}


@helper
def sum_of_products(n, k, x, w, b, x_zero):
    """The sum of an output."""
    total = b[k] if b.shape[0] else np.int32(0)
    for d in range(x.shape[1]):
        value = np.int32(x[n, d])
        if x_zero != 0:
            value = value - x_zero
        total += value * np.int32(w[d, k])
    return total


@declare(SHAPES, items="N K", writes="y", sums="D")
def forward(t, y, x, w, multiplier, shift, b=None, x_zero=0, y_zero=0, low=-128, high=127, twice=False):
    """Output y, (N, K), from x, (N, D), w, (D, K), multiplier, shift and b, (K,)."""
    n, k = divmod(t, y.shape[1])
    total = sum_of_products(n, k, x, w, b, x_zero)
    scaled = requantized(total, multiplier[k], shift[k], twice) + y_zero
    y[n, k] = saturated(scaled, low, high, y)


@declare(SHAPES, items="N K", writes="sums", sums="D")
def accumulate(t, sums, x, w, b=None, x_zero=0):
    """The sums, (N, K), from x, (N, D), w, (D, K), and b, (K,)."""
    n, k = divmod(t, sums.shape[1])
    sums[n, k] = sum_of_products(n, k, x, w, b, x_zero)


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=BYTES)
def pack_mask(t, mask, y, low=-128, high=127):
    """Mask of y, (N, K), as bytes, (N, B), with a bit for each of eight elements, set where y is at no end."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < y.shape[1] else y.shape[1]
    byte = 0
    for k in range(8 * b, end):
        if inner(y[n, k], low, high):
            byte |= 1 << (k - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N K", writes="dsums", derive=mask_bytes)
def grad_sums(t, dsums, dy, mask, multiplier, shift):
    """Gradient of the sums, (N, K), from dy, (N, K), mask, (N, B), multiplier and shift, (K,)."""
    # forward: y = saturated(requantized(sums, multiplier, shift) + y_zero)
    n, k = divmod(t, dsums.shape[1])
    value = dy[n, k] * (dy.dtype.type(multiplier[k]) / dy.dtype.type(np.int64(1) << (31 - shift[k])))
    dsums[n, k] = value if passes_bit(mask, n, k) else dsums.dtype.type(0)


@declare(SHAPES, items="N", writes="error_most", sums="K")
def most(t, error_most, dsums):
    """Largest magnitude of each row, (N,), of dsums, (N, K)."""
    found = error_most.dtype.type(0)
    for k in range(dsums.shape[1]):
        found = larger(found, abs(dsums[t, k]))
    error_most[t] = found


@declare(SHAPES, items="N", writes="w_error_most")
def w_most(t, w_error_most, dsums, w_scale):
    """Largest magnitude of dsums / w_scale of each row, (N,), from dsums, (N, K), and w_scale, (L,)."""
    found = w_error_most.dtype.type(0)
    for k in range(dsums.shape[1]):
        found = larger(found, abs(dsums[t, k] / w_scale[k % w_scale.shape[0]]))
    w_error_most[t] = found


@declare(SHAPES, items="N", writes="error_scale")
def scales(t, error_scale, error_most):
    """Scale of each row's errors, (N,), from the largest magnitudes, (N,)."""
    kind = error_scale.dtype
    error_scale[t] = scale_of(error_most[t], kind.type(LEVELS), kind.type(0), kind.type(1))


@declare(SHAPES, items="N", writes="w_error_scale")
def w_scales(t, w_error_scale, w_error_most):
    """Scale of each row's errors for dw, (N,), from the largest magnitudes, (N,)."""
    kind = w_error_scale.dtype
    w_error_scale[t] = scale_of(w_error_most[t], kind.type(LEVELS), kind.type(0), kind.type(1))


@declare(SHAPES, items="N K", writes="error")
def round_error(t, error, dsums, error_scale, step, seed, stream=0):
    """Errors of 8 bits for dx, (N, K), from dsums, (N, K), and error_scale, (N,).

    Drawn anew in each training step, `step`, (1,), of a run from `seed`, (1,).
    """
    n, k = divmod(t, error.shape[1])
    draw, _ = words(seed[0], stream, step[0], t)
    whole = rounded_at_random(dsums[n, k], error_scale[n], draw, dsums.dtype.type(WORDS), dsums)
    error[n, k] = np.int8(whole)


@declare(SHAPES, items="N K", writes="w_error")
def round_w_error(t, w_error, dsums, w_scale, w_error_scale, step, seed, stream=0):
    """Errors of 8 bits for dw and db, (N, K), from dsums, (N, K), w_scale, (L,), and w_error_scale, (N,).

    Drawn as those of `round_error`, by the other word of the draw.
    """
    n, k = divmod(t, w_error.shape[1])
    _, draw = words(seed[0], stream, step[0], t)
    value = dsums[n, k] / w_scale[k % w_scale.shape[0]]
    w_error[n, k] = np.int8(rounded_at_random(value, w_error_scale[n], draw, dsums.dtype.type(WORDS), dsums))


@declare(SHAPES, items="N D", writes="dx", derive=fits_features, sums="K", adds="K")
def grad_x(t, dx, error, w, error_scale):
    """Gradient of x, (N, D), from error, (N, K), w, (D, K), and error_scale, (N,)."""
    # forward: sums[n,k] = b[k] + Σ_d (x[n,d] − x_zero)·w[d,k]
    n, d = divmod(t, dx.shape[1])
    total = np.int32(w.dtype.type(0))
    for k in range(error.shape[1]):
        total = np.int32(total + np.int32(error[n, k]) * np.int32(w[d, k]))
    dx[n, d] = error_scale[n] * dx.dtype.type(total)


@declare(SHAPES, items="D K", writes="dw", sums="N", adds="N")
def grad_w(t, dw, w_error, x, w_error_scale, x_zero=0):
    """Gradient of the real weights, (D, K), from w_error, (N, K), x, (N, D), and w_error_scale, (N,)."""
    # forward: sums[n,k] = b[k] + Σ_d (x[n,d] − x_zero)·w[d,k]
    d, k = divmod(t, dw.shape[1])
    total = dw.dtype.type(0)
    for n in range(x.shape[0]):
        value = np.int32(x[n, d])
        if x_zero != 0:
            value = value - x_zero
        total += w_error_scale[n] * dw.dtype.type(value * np.int32(w_error[n, k]))
    dw[d, k] = total


@declare(SHAPES, items="K", writes="db", sums="N", adds="N")
def grad_b(t, db, w_error, w_error_scale, w_scale, b_scale):
    """Gradient of the real bias, (K,), from w_error, (N, K), w_error_scale, (N,), w_scale, (L,), and b_scale, (M,)."""
    # forward: sums[n,k] = b[k] + Σ_d (x[n,d] − x_zero)·w[d,k]
    total = db.dtype.type(0)
    for n in range(w_error.shape[0]):
        total += w_error_scale[n] * db.dtype.type(w_error[n, t])
    db[t] = total * (w_scale[t % w_scale.shape[0]] / b_scale[t % b_scale.shape[0]])
