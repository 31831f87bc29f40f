"""Operators in whole numbers once more, in Python's own integers and fractions, padding written out."""

import math
from fractions import Fraction

import numpy as np

LOW, HIGH = -(2**31), 2**31 - 1
HALF = Fraction(1, 2)


def half_up(number):
    """The nearest whole number, a half upwards."""
    return math.floor(number + HALF)


def half_away(number):
    """The nearest whole number, a half away from zero."""
    return -half_up(-number) if number < 0 else half_up(number)


def requantized(value, multiplier, shift, twice):
    """value·multiplier·2^(shift − 31) with one rounding, or with gemmlowp's two."""
    value, multiplier, shift = int(value), int(multiplier), int(shift)
    if not twice:
        return half_up(Fraction(value * multiplier) / Fraction(2) ** (31 - shift))
    high = min(max(value * 2 ** max(shift, 0), LOW), HIGH)
    high = min(half_up(Fraction(high * multiplier, 2**31)), HIGH)
    return half_away(Fraction(high, 2 ** max(-shift, 0)))


def clip(value, low, high):
    """A whole number within two ends."""
    return low if value < low else high if value > high else value


def padded(x, pad, fill):
    """Maps (N, H, W, C) of Python integers with the padding around them."""
    (top, bottom), (left, right) = pad
    wide = np.full((x.shape[0], top + x.shape[1] + bottom, left + x.shape[2] + right, x.shape[3]), fill, object)
    wide[:, top : top + x.shape[1], left : left + x.shape[2]] = x.astype(object)
    return wide


def conv2d(x, w, b, multiplier, shift, stride, dilation, pad, x_zero, y_zero, low, high, twice):
    """The convolution: every output is a list of products, taps in the padding of the zero point among them."""
    rows, columns, depth, kept = w.shape
    wide = padded(x, pad, x_zero)
    reach = [(n - 1) * d + 1 for n, d in zip((rows, columns), dilation, strict=True)]
    out = [(wide.shape[1 + i] - reach[i]) // stride[i] + 1 for i in range(2)]
    y = np.empty((len(x), *out, kept), np.int8)
    per_group = kept // (x.shape[3] // depth)
    for n, p, q, k in np.ndindex(y.shape):
        first = k // per_group * depth
        window = wide[
            n,
            p * stride[0] : p * stride[0] + reach[0] : dilation[0],
            q * stride[1] : q * stride[1] + reach[1] : dilation[1],
            first : first + depth,
        ]
        total = int(((window - x_zero) * w[..., k].astype(object)).sum()) + (0 if b is None else int(b[k]))
        assert LOW <= total <= HIGH
        y[n, p, q, k] = clip(requantized(total, multiplier[k], shift[k], twice) + y_zero, low, high)
    return y


def sums(x, w, b, x_zero):
    """The sums of a linear layer (N, K), Python integers."""
    total = (x.astype(object) - x_zero) @ w.astype(object)
    return total if b is None else total + b.astype(object)


def windows(x, window, stride, pad, fill=None):
    """(index of the output, list of the elements of its window), `fill` outside the map, or nothing."""
    wide = padded(x, pad, fill)
    for n, c in np.ndindex(x.shape[0], x.shape[3]):
        for p in range((wide.shape[1] - window[0]) // stride[0] + 1):
            for q in range((wide.shape[2] - window[1]) // stride[1] + 1):
                part = wide[n, p * stride[0] :, q * stride[1] :, c][: window[0], : window[1]]
                yield (n, p, q, c), [v for v in part.reshape(-1) if v is not None]
