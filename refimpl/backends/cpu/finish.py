"""What follows a convolution on a tile that is still in cache: scale, shift, a second branch, activation and its mask.

Activations are those of `activation`. A bit of the mask tells where the gradient passes: 0 < y, and y < 6 for RELU6.
"""

import numpy as np

from ...kernels.kernel import inline
from ..activation import NONE, RELU6
from .memory import write_bits
from .shared import bytes_, floats, shared


@shared
def finish(zero, y, width, row0, rows, k0, k1, scale, scaled, shift, shifted, residual, more, act):
    """act(scale·y + shift + residual) on the rows from row0 on and the channels `k0 : k1` of y (…, width), in place.

    scaled, shifted, more: is there a scale, a shift, a residual?
    """
    y, scale, shift, residual = floats(zero, y), floats(zero, scale), floats(zero, shift), floats(zero, residual)
    low = y.dtype.type(-np.inf if act == NONE else 0)
    high = y.dtype.type(6 if act == RELU6 else np.inf)
    for row in range(row0 * width, (row0 + rows) * width, width):
        if scaled:
            for k in range(k0, k1):
                y[row + k] *= scale[k]
        if shifted and not more:
            for k in range(k0, k1):
                y[row + k] = _clamp(y[row + k] + shift[k], low, high)
            continue
        if shifted:
            for k in range(k0, k1):
                y[row + k] += shift[k]
        if more:
            for k in range(row + k0, row + k1):
                y[k] = _clamp(y[k] + residual[k], low, high)
        elif act != NONE:
            for k in range(row + k0, row + k1):
                y[k] = _clamp(y[k], low, high)


@shared
def finish_narrow(
    zero, y, width, row0, rows, own, aside, scale, scaled, shift, shifted, residual, more, act
):  # fmt: skip
    """As `finish`, for the bare convolution in own[aside:] (width, rows): the pixels of a channel lie together.

    y (…, width) is written from row0 on. scaled, shifted, more: is there a scale, a shift, a residual?
    """
    y, own, residual = floats(zero, y), floats(zero, own), floats(zero, residual)
    scale, shift = floats(zero, scale), floats(zero, shift)
    low = y.dtype.type(-np.inf if act == NONE else 0)
    high = y.dtype.type(6 if act == RELU6 else np.inf)
    for k in range(width):
        factor = scale[k] if scaled else y.dtype.type(1)
        term = shift[k] if shifted else zero
        start, to = aside + k * rows, row0 * width + k
        if more:
            for i in range(rows):
                y[to + i * width] = _clamp(own[start + i] * factor + term + residual[to + i * width], low, high)
        else:
            for i in range(rows):
                own[start + i] = _clamp(own[start + i] * factor + term, low, high)
            for i in range(rows):
                y[to + i * width] = own[start + i]


@inline
def _clamp(value, low, high):
    value = low if value < low else value  # in this form NaN passes
    return high if value > high else value


@shared
def activation_bits(zero, mask, mask_bytes, y, pixels, width, n0, n1, first, last, k0, k1, act):
    """Mask of the pixels `first : last` of the samples `n0 : n1` and the channels `k0 : k1` of y.

    mask_bytes: of a sample; pixels, width: pixels of a sample and channels of y.
    """
    mask, y = bytes_(mask), floats(zero, y)
    low, high = y.dtype.type(0), y.dtype.type(6 if act == RELU6 else np.nan)
    for n in range(n0, n1):
        byte = n * mask_bytes
        if k1 - k0 == width:
            count = (last - first) * width
            write_bits(mask, byte + first * width // 8, y, (n * pixels + first) * width, count, low, high)
        else:  # channels are a multiple of 8, parts of 16: a pixel's bits are whole bytes
            for pixel in range(first, last):
                start = (n * pixels + pixel) * width + k0
                write_bits(mask, byte + (pixel * width + k0) // 8, y, start, k1 - k0, low, high)
