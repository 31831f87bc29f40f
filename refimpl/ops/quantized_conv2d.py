"""2-D convolution in whole numbers: int8 maps, int8 or int16 weights, sums in int32, requantized to int8.

    sum = b[k] + Σ_{r,s,c} (x[n, p·stride − top + r·dilation, …, g·C/G + c] − x_zero)·w[r,s,c,k]
    y[n,p,q,k] = saturated(requantized(sum, multiplier[k], shift[k]) + y_zero, low, high)

with taps and groups as in `conv2d`. The padding is the zero point, so a tap outside the map adds nothing and is
skipped. In real numbers x is x_scale·(x − x_zero), the weights are w_scale[k]·w, the bias is x_scale·w_scale[k]·b, and
multiplier and shift stand for x_scale·w_scale[k]/y_scale (`kernels.requantize`), rounded once or `twice`. A rectifier
is saturation: `low` is y_zero, and for ReLU6 `high` is what stands for 6. A sum must fit into int32: `surgery.quantize`
refuses a net of which one might not.

Gradients of maps are those of their whole numbers, dy = ∂L/∂y and dx = ∂L/∂x; rounding is taken for the identity, and
what is saturated, y at `low` or `high`, passes none: one bit an element is kept, that of element e of a sample in bit
e mod 8 of byte ⌊e/8⌋. With slope[k] = multiplier[k]·2^(shift[k] − 31), the gradient of a sum is

    dsum[n,p,q,k] = dy[n,p,q,k]·slope[k] where low < y < high, else 0
    error ≈ dsum / error_scale[n]                   int8, rounded at random: E[error_scale·error] = dsum
    w_error ≈ dsum / (w_scale[k]·w_error_scale[n])  int8 as well, by the other word of the draw (`kernels.rounding`)
    error_scale[n] = max|dsum[n]| / 127, w_error_scale[n] likewise
    dx = error_scale[n]·Σ_{r,s,k} error·w                            products of 8 bits in sums of 32
    dw[r,s,c,k] = Σ_n w_error_scale[n]·Σ_{p,q} (x − x_zero)·w_error  sums of 32 bits over a row, of 64 over a map
    db[k] = Σ_n w_error_scale[n]·Σ_{p,q} w_error·w_scale[k]/b_scale[k]

dw and db are those of the real numbers that w and b stand for: w_scale and b_scale times them are those of the whole
numbers. So they are the gradients of the float net, and a norm of them is its norm.

Readings:
  [paper] arXiv 2206.15472 trains the whole numbers themselves, whose gradients are w_scale[k] and w_scale[k]·x_scale
          times those of the real weights and biases.
  [ours]  An error map is of floats between nodes and of 8 bits in products, with a scale for each sample: the
          per-sample quantizer of arXiv 2010.14298. Of the way back of arXiv 2206.15472 no more was at hand than its
          scaling of gradients (`quantized_sgd`).
  [ours]  dx adds up channels, and what they weigh in it, w_scale[k], is folded into the map before it is rounded. dw of
          a channel is of that channel alone: rounded with w_scale[k], a channel of small weights would have few whole
          numbers, so the map is rounded a second time without.
  [ours]  y at an end gives no gradient, though it may have come there without being cut off.

The equations and the choice of (multiplier, shift) are those of TensorFlow Lite's CONV_2D and DEPTHWISE_CONV_2D, whose
weights are of 8 bits here; weights of 16 bits beside maps of 8 are those of arXiv 2411.04036 eq. (10). MCUNet's code
(arXiv 2206.15472) rounds sum·scale in floating point; the whole numbers in its place are our reading.
Dimensions: N samples, H W input rows and columns, C input channels, K output channels, R S kernel rows and columns,
P Q output rows and columns, G groups (G = C is depthwise), B bytes of mask, L scales of w and M of b: one for all
output channels, or one for each.
"""

import numpy as np

from ..kernels.geometry import CONV_MAP, CONV_OUT, CONV_TAP, conv_derive, mask_of
from ..kernels.kernel import helper
from ..kernels.passes import declare
from ..kernels.random import ROUNDING as STREAM  # noqa: F401 (stated to the compiler)
from ..kernels.random import words
from ..kernels.requantize import requantized, saturated
from ..kernels.rounding import LEVELS, WORDS, fits, inner, larger, passes_bit, rounded_at_random, scale_of

SHAPES = {
    "x": "int8: N H W C", "w": "int8|int16: R S C/G K", "b": "int32: K", "multiplier": "int32: K", "shift": "int32: K",
    "y": "int8: N P Q K", "dy": "N P Q K", "mask": "uint8: N B", "w_scale": "L", "b_scale": "M",
    "slope": "K", "error_most": "N", "error_scale": "N", "error": "int8: N P Q K",
    "w_slope": "K", "w_error_most": "N", "w_error_scale": "N", "w_error": "int8: N P Q K",
    "step": "int64: 1", "seed": "int64: 1", "dx": "N H W C", "dw": "R S C/G K", "db": "K",
}  # fmt: skip
PARAMS = ("w", "b")
TRAINS = "counted"
BIAS = "b"
HOST = {"step": "update", "seed": "seed"}
mask_bytes, BYTES = mask_of("P", "Q", "K")
W_MOST, X_MOST = 128, 255  # the largest magnitudes of a weight of 8 bits and of x − x_zero


def fits_channels(sizes, attrs):
    """P, Q and G; ShapeError where a sum of dx over taps and output channels may leave 32 bits."""
    found = conv_derive(sizes, attrs)
    if {"R", "S", "K"} <= sizes.keys():
        fits(sizes["R"] * sizes["S"] * (sizes["K"] // sizes.get("G", 1)), W_MOST, "R·S·K/G")
    return found


def fits_rows(sizes, attrs):
    """P, Q and G; ShapeError where the sum of a row of dw may leave 32 bits."""
    found = conv_derive(sizes, attrs)
    if "Q" in found:
        fits(found["Q"], X_MOST, "the columns Q of dy")
    return found


def fits_map(sizes, attrs):
    """Nothing follows; ShapeError where the sum of a map of errors may leave 32 bits."""
    return fits(sizes["P"] * sizes["Q"], 1, "P·Q") if {"P", "Q"} <= sizes.keys() else {}


@declare(SHAPES, items="N P Q K", writes="y", derive=conv_derive, alike=CONV_OUT, sums="C/G")
def forward(
    t, y, x, w, multiplier, shift, b=None, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0)),
    x_zero=0, y_zero=0, low=-128, high=127, twice=False,
):  # fmt: skip
    """Output y, (N, P, Q, K), from x, (N, H, W, C), w, (R, S, C/G, K), multiplier, shift and b, (K,)."""
    rest, k = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    depth = w.shape[2]
    first = k // (w.shape[3] * depth // x.shape[3]) * depth  # first input channel of k's group
    total = b[k] if b.shape[0] else np.int32(w.dtype.type(0))
    for r in range(w.shape[0]):
        h = p * stride[0] - pad[0][0] + r * dilation[0]
        if 0 <= h < x.shape[1]:
            for s in range(w.shape[1]):
                col = q * stride[1] - pad[1][0] + s * dilation[1]
                if 0 <= col < x.shape[2]:
                    for c in range(depth):
                        value = np.int32(x[n, h, col, first + c])
                        if x_zero != 0:
                            value = value - x_zero
                        total += value * np.int32(w[r, s, c, k])
    scaled = requantized(total, multiplier[k], shift[k], twice) + y_zero
    y[n, p, q, k] = saturated(scaled, low, high, y)


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=BYTES)
def pack_mask(t, mask, y, low=-128, high=127):
    """Mask of y, (N, P, Q, K), as bytes, (N, B), with a bit for each of eight elements, set where y is at no end."""
    n, b = divmod(t, mask.shape[1])
    count = y.shape[1] * y.shape[2] * y.shape[3]
    end = 8 * b + 8 if 8 * b + 8 < count else count
    byte = 0
    for e in range(8 * b, end):
        rest, k = divmod(e, y.shape[3])
        p, q = divmod(rest, y.shape[2])
        if inner(y[n, p, q, k], low, high):
            byte |= 1 << (e - 8 * b)
    mask[n, b] = byte


@helper
def factor(multiplier, shift, like):
    """multiplier·2^(shift − 31), of the dtype of the array `like`."""
    return like.dtype.type(multiplier) / like.dtype.type(np.int64(1) << (31 - shift))


@helper
def largest(n, dy, mask, slope):
    """Largest magnitude of the gradient of the sums of sample n, or of them by other slopes."""
    found, zero = dy.dtype.type(0), dy.dtype.type(0)
    for p in range(dy.shape[1]):
        for q in range(dy.shape[2]):
            at = (p * dy.shape[2] + q) * dy.shape[3]
            for k in range(dy.shape[3]):
                value = abs(dy[n, p, q, k] * slope[k])
                found = larger(found, value if passes_bit(mask, n, at + k) else zero)
    return found


@helper
def rounded(n, p, q, k, dy, mask, slope, scale, draw):
    """The gradient of a sum by its slope, as a whole number of 8 bits in steps of the sample's scale."""
    passes = passes_bit(mask, n, (p * dy.shape[2] + q) * dy.shape[3] + k)
    value = dy[n, p, q, k] * slope[k]
    value = value if passes else dy.dtype.type(0)
    return np.int8(rounded_at_random(value, scale[n], draw, dy.dtype.type(WORDS), dy))


@declare(SHAPES, items="K", writes="slope")
def slopes(t, slope, multiplier, shift):
    """Whole steps of y that a step of a sum makes, (K,), from multiplier and shift, (K,)."""
    slope[t] = factor(multiplier[t], shift[t], slope)


@declare(SHAPES, items="K", writes="w_slope")
def w_slopes(t, w_slope, multiplier, shift, w_scale):
    """The same for a step of a sum over w_scale, (L,): (K,)."""
    w_slope[t] = factor(multiplier[t], shift[t], w_slope) / w_scale[t % w_scale.shape[0]]


@declare(SHAPES, items="N", writes="error_most", derive=mask_bytes, sums="P Q K")
def most(t, error_most, dy, mask, slope):
    """Largest magnitude of dsum of each sample, (N,), from dy, (N, P, Q, K), mask, (N, B), and slope, (K,)."""
    error_most[t] = largest(t, dy, mask, slope)


@declare(SHAPES, items="N", writes="w_error_most", derive=mask_bytes, sums="P Q K")
def w_most(t, w_error_most, dy, mask, w_slope):
    """Largest magnitude of dsum / w_scale of each sample, (N,), from dy, mask and w_slope."""
    w_error_most[t] = largest(t, dy, mask, w_slope)


@declare(SHAPES, items="N", writes="error_scale")
def scales(t, error_scale, error_most):
    """Scale of each sample's errors, (N,), from the largest magnitudes, (N,)."""
    kind = error_scale.dtype
    error_scale[t] = scale_of(error_most[t], kind.type(LEVELS), kind.type(0), kind.type(1))


@declare(SHAPES, items="N", writes="w_error_scale")
def w_scales(t, w_error_scale, w_error_most):
    """Scale of each sample's errors for dw, (N,), from the largest magnitudes, (N,)."""
    kind = w_error_scale.dtype
    w_error_scale[t] = scale_of(w_error_most[t], kind.type(LEVELS), kind.type(0), kind.type(1))


@declare(SHAPES, items="N P Q K", writes="error", derive=mask_bytes)
def round_error(t, error, dy, mask, slope, error_scale, step, seed, stream=0):
    """Errors of 8 bits for dx, (N, P, Q, K), from dy, mask, (N, B), slope, (K,), and error_scale, (N,).

    Drawn anew in each training step, `step`, (1,), of a run from `seed`, (1,).
    """
    rest, k = divmod(t, error.shape[3])
    rest, q = divmod(rest, error.shape[2])
    n, p = divmod(rest, error.shape[1])
    draw, _ = words(seed[0], stream, step[0], t)
    error[n, p, q, k] = rounded(n, p, q, k, dy, mask, slope, error_scale, draw)


@declare(SHAPES, items="N P Q K", writes="w_error", derive=mask_bytes)
def round_w_error(t, w_error, dy, mask, w_slope, w_error_scale, step, seed, stream=0):
    """Errors of 8 bits for dw and db, (N, P, Q, K), from dy, mask, (N, B), w_slope, (K,), and w_error_scale, (N,).

    Drawn as those of `round_error`, by the other word of the draw.
    """
    rest, k = divmod(t, w_error.shape[3])
    rest, q = divmod(rest, w_error.shape[2])
    n, p = divmod(rest, w_error.shape[1])
    _, draw = words(seed[0], stream, step[0], t)
    w_error[n, p, q, k] = rounded(n, p, q, k, dy, mask, w_slope, w_error_scale, draw)


@declare(SHAPES, items="N H W C", writes="dx", derive=fits_channels, alike=CONV_MAP, sums="K/G")
def grad_x(t, dx, error, w, error_scale, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of x, (N, H, W, C), from error, (N, P, Q, K), w, (R, S, C/G, K), and error_scale, (N,).

    H and W (and G) must be given: several sizes give one P.
    """
    # forward: sum[n,p,q,k] = b[k] + Σ_{r,s,c} (x[n,h,col,c] − x_zero)·w[r,s,c,k], h = p·stride − top + r·dilation
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    depth = w.shape[2]
    width = w.shape[3] * depth // dx.shape[3]  # output channels of a group
    first = c // depth * width
    total = np.int32(w.dtype.type(0))
    for r in range(w.shape[0]):
        p, off = divmod(h + pad[0][0] - r * dilation[0], stride[0])
        if off == 0 and 0 <= p < error.shape[1]:
            for s in range(w.shape[1]):
                q, off = divmod(col + pad[1][0] - s * dilation[1], stride[1])
                if off == 0 and 0 <= q < error.shape[2]:
                    for k in range(first, first + width):
                        total = np.int32(total + np.int32(error[n, p, q, k]) * np.int32(w[r, s, c % depth, k]))
    dx[n, h, col, c] = error_scale[n] * dx.dtype.type(total)


@declare(SHAPES, items="R S C/G K", writes="dw", derive=fits_rows, alike=CONV_TAP, sums="N", adds="N")
def grad_w(
    t, dw, w_error, x, w_error_scale, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0)), x_zero=0
):  # fmt: skip
    """Gradient of the real weights, (R, S, C/G, K), from w_error, (N, P, Q, K), x, (N, H, W, C), and w_error_scale.

    R and S (and G) must be given: several sizes give one P.
    """
    # forward: sum[n,p,q,k] = b[k] + Σ_{r,s,c} (x[n,h,col,c] − x_zero)·w[r,s,c,k], h = p·stride − top + r·dilation
    rest, k = divmod(t, dw.shape[3])
    rest, c = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    depth = dw.shape[2]
    channel = k // (dw.shape[3] * depth // x.shape[3]) * depth + c
    total = dw.dtype.type(0)
    for n in range(x.shape[0]):
        whole = np.int64(x.dtype.type(0))
        for p in range(w_error.shape[1]):
            h = p * stride[0] - pad[0][0] + r * dilation[0]
            if 0 <= h < x.shape[1]:
                row = np.int32(x.dtype.type(0))
                for q in range(w_error.shape[2]):
                    col = q * stride[1] - pad[1][0] + s * dilation[1]
                    if 0 <= col < x.shape[2]:
                        value = np.int32(x[n, h, col, channel])
                        if x_zero != 0:
                            value = value - x_zero
                        row = np.int32(row + value * np.int32(w_error[n, p, q, k]))
                whole += row
        total += w_error_scale[n] * dw.dtype.type(whole)
    dw[r, s, c, k] = total


@declare(SHAPES, items="K", writes="db", derive=fits_map, sums="N P Q", adds="N P Q")
def grad_b(t, db, w_error, w_error_scale, w_scale, b_scale):
    """Gradient of the real bias, (K,), from w_error, (N, P, Q, K), its scale, (N,), w_scale, (L,), b_scale, (M,)."""
    # forward: sum[n,p,q,k] = b[k] + Σ (x − x_zero)·w
    total = db.dtype.type(0)
    for n in range(w_error.shape[0]):
        whole = np.int32(w_error.dtype.type(0))
        for p in range(w_error.shape[1]):
            for q in range(w_error.shape[2]):
                whole = np.int32(whole + np.int32(w_error[n, p, q, t]))
        total += w_error_scale[n] * db.dtype.type(whole)
    db[t] = total * (w_scale[t % w_scale.shape[0]] / b_scale[t % b_scale.shape[0]])
