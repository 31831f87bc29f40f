"""Depthwise products of 8-bit training, LANES channels at a time: summed exactly, then scaled to floats."""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, IMAC, MAC, MUL, Ops, executes
from ...kernels.kernel import fast, inline
from . import tiles
from .integers import as_floats, every, widen
from .quantized_gradient import _part, plan
from .simd import LANES, address, load, splat, store

BLOCK = 4 * LANES  # channels of an item: whole cache lines of bytes


def _met(size: int, part: tuple) -> int:
    """How often the outputs of a part of an axis meet a tap on a map of `size`."""
    outputs, _, _, taps, stride, dilation, before = part
    index = np.arange(outputs)[:, None] * stride - before + np.arange(taps) * dilation
    return int(((index >= 0) & (index < size)).sum())


def depthwise_executes(y, x, w, b, row_scale, w_scale, geometry, is_turned) -> Ops:
    """The taps that lie on the map, whole vectors of channels."""
    vectors = tiles.ceil_div(x.shape[3], LANES)
    found = plan(is_turned, y.shape[1:3], w.shape[:2], geometry)
    taps = sum(_met(x.shape[1], h) * _met(x.shape[2], v) for h, v in found)
    total = IMAC * (x.shape[0] * taps * vectors * LANES)
    outputs = y.shape[0] * y.shape[1] * y.shape[2] * vectors * LANES
    return total + (MUL + ADD * bool(b.size)) * outputs + MUL * (y.shape[0] * y.shape[1])


@executes(depthwise_executes)
@fast
def depthwise(y, x, w, b, row_scale, w_scale, geometry, is_turned):
    """Write y from x and w (R, S, 1, C), as `quantized_gradient.product` does."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    parts_h, parts_w = (stride_h, stride_w) if is_turned else (1, 1)
    channels = x.shape[3]
    for t in prange(y.shape[0] * y.shape[1]):
        n, line = divmod(np.int64(t), y.shape[1])
        scale = splat(address(y), row_scale[n if is_turned else 0] * w_scale[0])
        i = line // parts_h
        h = _part(is_turned, line % parts_h, y.shape[1], w.shape[0], stride_h, dilation_h, top)
        low, high = inside(i * h[4] - h[6], h[5], h[3], x.shape[1])
        row = (n * x.shape[1] + i * h[4] - h[6]) * x.shape[2]
        for c in range(0, channels, LANES):
            lanes = min(LANES, channels - c)
            bias = splat(address(y), 0.0)
            if b.size:
                bias = load(address(b), c, lanes)
            for first in range(parts_w):
                v = _part(is_turned, first, y.shape[2], w.shape[1], stride_w, dilation_w, left)
                for j in range(v[0]):
                    begin, end = inside(j * v[4] - v[6], v[5], v[3], x.shape[2])
                    total = every(0)
                    for r in range(low, high):
                        tap = (h[1] + r * h[2]) * w.shape[1]
                        at = (row + r * h[5] * x.shape[2] + j * v[4] - v[6]) * channels + c
                        for s in range(begin, end):
                            weight = widen(address(w), (tap + v[1] + s * v[2]) * channels + c, lanes)
                            total = total + widen(address(x), at + s * v[5] * channels, lanes) * weight
                    value = as_floats(total, address(y)) * scale
                    if b.size:
                        value = value + bias
                    to = (n * y.shape[1] + line) * y.shape[2] + first + j * parts_w
                    store(address(y), to * channels + c, value, lanes)


@inline
def inside(start, step, count, size):
    """(first, end) of the numbers i < count for which start + i·step lies from 0 to size − 1."""
    low, high = 0, count
    while low < high and start + low * step < 0:
        low += 1
    while high > low and start + (high - 1) * step >= size:
        high -= 1
    return low, high


def grad_w_executes(dw, dy, x, dy_scale, x_scale, geometry) -> Ops:
    """The taps that lie on the map, whole vectors of channels; the sum of each row, scaled."""
    vectors = tiles.ceil_div(x.shape[3], LANES) * LANES
    ((h, v),) = plan(False, dy.shape[1:3], dw.shape[:2], geometry)
    rows, columns = _met(x.shape[1], h), _met(x.shape[2], v)
    total = IMAC * (rows * columns * vectors) + MAC * (rows * dw.shape[1] * vectors)
    return total * x.shape[0] + MUL * (dw.shape[0] * dw.shape[1] * vectors)


@executes(grad_w_executes)
@fast
def grad_w(dw, dy, x, dy_scale, x_scale, geometry):
    """Write dw (R, S, 1, C), floats, from dy (N, P, Q, C), int8 or int16, x (N, H, W, C), int8, and their scales."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    channels = x.shape[3]
    blocks = (channels + BLOCK - 1) // BLOCK
    for t in prange(dw.shape[0] * dw.shape[1] * blocks):
        tap, block = divmod(np.int64(t), blocks)
        r, s = divmod(tap, dw.shape[1])
        begin, end = inside(s * dilation_w - left, stride_w, dy.shape[2], x.shape[2])
        low, high = inside(r * dilation_h - top, stride_h, dy.shape[1], x.shape[1])
        for c in range(block * BLOCK, min((block + 1) * BLOCK, channels), LANES):
            lanes = min(LANES, channels - c)
            total = splat(address(dw), 0.0)
            for n in range(x.shape[0]):
                scale = splat(address(dw), dy_scale[n])
                for p in range(low, high):
                    line = (n * x.shape[1] + p * stride_h - top + r * dilation_h) * x.shape[2]
                    at = (line - left + s * dilation_w) * channels + c
                    row, to = every(0), (n * dy.shape[1] + p) * dy.shape[2] * channels + c
                    for q in range(begin, end):
                        here = widen(address(x), at + q * stride_w * channels, lanes)
                        row = row + here * widen(address(dy), to + q * channels, lanes)
                    total = total + as_floats(row, address(dw)) * scale
            store(address(dw), tap * channels + c, total * splat(address(dw), x_scale[0]), lanes)
