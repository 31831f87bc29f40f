"""Depthwise convolutions of bytes in words: what lies under four kernel rows is multiplied and summed at once.

    total[n,p,q,c] = start[c] + Σ_{g,s} Σ_{k<4} (x[h+k, q·stride − left + s·dilation, c] + OFFSET)·w[4g+k, s, c]
    start[c] = b[c] − (x_zero + OFFSET)·Σ_{r,s} w[r,s,c]

where h is the row of x under kernel row 4g. Kernel rows beside the map are left out of the words of a row of outputs
and of its Σ w; columns beside the map are words of x_zero. Outputs of a row are made four at a time, so that kernels of
stride 1 meet the word of a column once for all of them. Sums are exact, as in `quantized_conv2d`.
"""

import numpy as np
from numba import prange

from ...compiler.executed import IADD, IMAC, IMUL, Ops, executes
from ...kernels.kernel import fast, helper, inlined
from . import tiles
from .integers import OFFSET, dot, every, join4, narrow, packed, under, widen
from .quantized_conv2d import put_executes
from .quantized_product import each, finish
from .shared import stack
from .simd import LANES, address, given

WORDS = 64  # of a kernel at most, and …
COLUMNS = 128  # … of what lies under a strip of outputs: they are on the stack
TOGETHER = 4  # outputs
ITEMS = 4  # wanted at least, enough for the threads of small boards
PIECE_BYTES = 1 << 14  # of the rows of x that an item reads: they stay in the first cache from channels to channels
_weights, _columns = stack(WORDS * LANES), stack(COLUMNS * LANES)


def fits(w, stride: int, dilation: int) -> bool:
    """Can the processor sum four bytes at once, and is w, (R, S, 1, C), of bytes and small enough for the stack?

    stride, dilation: along a row.
    """
    rows, across = w.shape[:2]
    words = each(w.dtype) == 4 and groups(rows) * across <= WORDS
    return words and strip(rows, across, stride, dilation) > 0


@helper
def groups(rows: int) -> int:
    """Words that hold a byte of each of so many kernel rows."""
    return (rows + 3) // 4


@helper
def strip(rows: int, across: int, stride: int, dilation: int) -> int:
    """Outputs whose columns fit on the stack, whole fours; rows: kernel rows on the map."""
    most = COLUMNS // max(1, groups(rows)) - (across - 1) * dilation - 1
    return max(0, (most // stride + 1) // TOGETHER * TOGETHER)


@helper
def rows_of_item(out: tuple, taps: int, row_bytes: int) -> int:
    """Rows of outputs of an item: no less than what packing the weights of `taps` taps is worth.

    out: N P Q; row_bytes: bytes of x from a row of outputs to the next.
    """
    n, p, q = out
    wanted = min((n * p + ITEMS - 1) // ITEMS, PIECE_BYTES // max(1, row_bytes))
    return max(1, min(p, max(wanted, (taps + q - 1) // max(1, q))))


@helper
def on_map(h: int, taps: int, dilation: int, size: int) -> tuple[int, int]:
    """(first, end) of the kernel rows that lie on a map of `size` rows, the first of `taps` being on row h."""
    first, end = 0, taps
    while first < end and h + first * dilation < 0:
        first += 1
    while end > first and h + (end - 1) * dilation >= size:
        end -= 1
    return first, end


def forward_executes(y, x, w, b, multiplier, shift, geometry, x_zero, y_zero, low, high, twice) -> Ops:
    """Whole words, vectors and, but of three taps across, fours of outputs; weights are packed for each set of rows."""
    stride_h, _, dilation_h, _, top, _ = geometry
    (p, q), (taps, across) = y.shape[1:3], w.shape[:2]
    blocks, fours = tiles.ceil_div(x.shape[3], LANES), tiles.ceil_div(q, TOGETHER)
    step = rows_of_item((x.shape[0], p, q), taps * across, stride_h * x.shape[2] * x.shape[3])
    total, before = Ops(), None
    for row in range(p):
        found = on_map(row * stride_h - top, taps, dilation_h, x.shape[1])
        words = groups(found[1] - found[0]) * across
        outputs = q if across == 3 and words <= 3 else fours * TOGETHER
        if row % step == 0 or found != before:
            total += IADD * (4 * words) + IMUL + IADD
        before = found
        total += IMAC * (4 * words * outputs) + put_executes(twice) * q
    return total * (LANES * blocks * x.shape[0])


@executes(forward_executes)
@fast
def forward(y, x, w, b, multiplier, shift, geometry, x_zero, y_zero, low, high, twice):
    """Write y (N, P, Q, C) from x (N, H, W, C) and w (R, S, 1, C), int8 that `fits`; the rest: `quantized_conv2d`."""
    channels = x.shape[3]
    size = (x.shape[0], y.shape[1], y.shape[2])
    step = rows_of_item(size, w.shape[0] * w.shape[1], geometry[0] * x.shape[2] * channels)
    pieces = (y.shape[1] + step - 1) // step
    for t in prange(x.shape[0] * pieces):
        n, piece = divmod(np.int64(t), pieces)
        for c in range(0, channels, LANES):
            rows(
                address(y), address(x), address(w), address(b), address(multiplier), address(shift), n, c,
                min(LANES, channels - c), piece * step, min((piece + 1) * step, y.shape[1]), channels,
                (x.shape[1], x.shape[2]), (y.shape[1], y.shape[2]), (w.shape[0], w.shape[1]), geometry, x_zero,
                y_zero, low, high, twice,
            )  # fmt: skip


@inlined
def rows(
    y, x, w, b, multiplier, shift, n, c, lanes, begin, end, channels, shape, out, taps, geometry, x_zero,
    y_zero, low, high, twice,
):  # fmt: skip
    """Rows begin … end−1 of the outputs of sample n, of `lanes` channels from c on; arrays by their addresses.

    shape: (H, W); out: (P, Q); taps: (R, S).
    """
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    weights, columns = _weights(np.int32(0)), _columns(np.int32(0))
    scale, right = widen(multiplier, c, lanes), widen(shift, c, lanes)
    bias = every(0)
    if given(b):
        bias = widen(b, c, lanes)
    pad, down = every(((x_zero + OFFSET) & 255) * 0x01010101), dilation_h * shape[1] * channels
    start, r0, r1, most = bias, -1, -1, 0
    for p in range(begin, end):
        h = p * stride_h - top
        first, last = on_map(h, taps[0], dilation_h, shape[0])
        if first != r0 or last != r1:
            r0, r1, most = first, last, strip(last - first, taps[1], stride_w, dilation_w)
            start = bias - pack(address(weights), w, c, r0, r1, taps[1], channels, lanes) * every(x_zero + OFFSET)
        line = ((n * shape[0] + h) * shape[1]) * channels + r0 * down + c
        to = (n * out[0] + p) * out[1] * channels + c
        row(
            y, to, x, line, address(weights), address(columns), most, r1 - r0, down, shape[1], out[1], taps[1],
            stride_w, dilation_w, left, channels, lanes, start, pad, scale, right, y_zero, low, high, twice,
        )  # fmt: skip


@inlined
def pack(words, w, c, r0, r1, across, channels, lanes):
    """Words of kernel rows r0 … r1−1, four a word and zeros where there are none; returns the sums of the weights."""
    total, down = every(0), across * channels
    for g in range(groups(r1 - r0)):
        left = r1 - r0 - 4 * g
        for s in range(across):
            at = ((r0 + 4 * g) * across + s) * channels + c
            w0 = widen(w, at, lanes)
            w1 = widen(w, at + down, lanes if left > 1 else 0)
            w2 = widen(w, at + 2 * down, lanes if left > 2 else 0)
            w3 = widen(w, at + 3 * down, lanes if left > 3 else 0)
            total = total + w0 + w1 + w2 + w3
            narrow(words, (g * across + s) * LANES, join4(w0, w1, w2, w3), LANES)
    return total


@inlined
def row(
    y, to, x, line, words, columns, most, rows, down, width, out, across, stride, dilation, left, channels, lanes,
    start, pad, multiplier, shift, y_zero, low, high, twice,
):  # fmt: skip
    """A row of outputs, from element `to` of y on, a strip at a time.

    line: element of x under the first kernel row, in column 0; down: elements from a kernel row to the next; rows: how
    many there are, in `words`; columns: room for the words of `most` outputs; pad: the word of a column beside the map
    of `width` columns; start: what sums begin with.
    """
    for begin in range(0, out, most):
        count = min(most, out - begin)
        met = (count - 1) * stride + (across - 1) * dilation + 1
        for g in range(groups(rows)):
            rest, at = rows - 4 * g - 1, line + 4 * g * down
            d1, d2, d3 = min(1, rest) * down, min(2, rest) * down, min(3, rest) * down
            weave(columns, g * met, x, at, begin * stride - left, met, width, channels, d1, d2, d3, lanes, pad)
        # a sum takes the place of a word that no output after it meets
        if across == 3 and groups(rows) == 1:
            w0, w1, w2 = packed(words, 0), packed(words, LANES), packed(words, 2 * LANES)
            for i in range(count):
                j = i * stride * LANES
                v0 = dot(start, packed(columns, j), w0, x)
                v0 = dot(v0, packed(columns, j + dilation * LANES), w1, x)
                v0 = dot(v0, packed(columns, j + 2 * dilation * LANES), w2, x)
                narrow(columns, i * LANES, v0, LANES)
        else:
            for i in range(0, count, TOGETHER):
                v0, v1, v2, v3 = start, start, start, start
                i1, i2, i3 = min(i + 1, count - 1), min(i + 2, count - 1), min(i + 3, count - 1)
                for g in range(groups(rows)):
                    for s in range(across):
                        weight, j = packed(words, (g * across + s) * LANES), g * met + s * dilation
                        v0 = dot(v0, packed(columns, (j + i * stride) * LANES), weight, x)
                        v1 = dot(v1, packed(columns, (j + i1 * stride) * LANES), weight, x)
                        v2 = dot(v2, packed(columns, (j + i2 * stride) * LANES), weight, x)
                        v3 = dot(v3, packed(columns, (j + i3 * stride) * LANES), weight, x)
                narrow(columns, i * LANES, v0, LANES)
                narrow(columns, i1 * LANES, v1, LANES)
                narrow(columns, i2 * LANES, v2, LANES)
                narrow(columns, i3 * LANES, v3, LANES)
        finish(
            y, to + begin * channels, channels, columns, 0, LANES, count, multiplier, shift, lanes, y_zero, low, high,
            twice,
        )  # fmt: skip


@inlined
def weave(columns, slot, x, at, first, count, width, channels, d1, d2, d3, lanes, pad):
    """Words of `count` columns from `first` on, to word `slot` of columns and those after it.

    at: element of x under the first kernel row, in column 0; the other rows lie d1, d2 and d3 elements after it.
    """
    begin = min(max(-first, 0), count)
    end = max(min(width - first, count), begin)
    for j in range(begin):
        narrow(columns, (slot + j) * LANES, pad, LANES)
    for j in range(begin, end):
        here = at + (first + j) * channels
        narrow(columns, (slot + j) * LANES, under(x, here, here + d1, here + d2, here + d3, lanes), LANES)
    for j in range(end, count):
        narrow(columns, (slot + j) * LANES, pad, LANES)
