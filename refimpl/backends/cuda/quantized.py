"""Convolutions and linear layers in whole numbers on tiles, with dots of four bytes (`dp4a`).

A word holds four channels. A weight of 16 bits is two bytes, w = 256·high + low with low from 0 to 255, and takes two
dots. The zero point is taken off behind the sum: Σ (x − x_zero)·w = Σ x·w − x_zero·Σ w, where a tap in the padding
counts as x_zero. Sums are those of the reference kernel, to the bit.
"""

import numpy as np

from ...compiler.executed import ADD, IADD, IMAC, IMUL, MUL, Ops, executes
from ...kernels.cuda import device, dot4, dot4_unsigned, jit
from ...kernels.cuda import late as cuda
from ...kernels.kernel import helper
from ...kernels.requantize import requantized, saturated
from ...kernels.shared_exponent import aligned
from .tile import Tile, Tiled, tile_of, up

EACH = 4  # channels of a word
OF_BIAS = IADD * 7  # of an output whose bias is aligned and added
ONES = 0x01010101


@helper
def signed(word):
    """Of 32 bits the number that they are in int32."""
    return word - (1 << 32) if word >= 1 << 31 else word


def in_bytes(value, k, y, b, multiplier, shift, ends):
    """A sum of output k with its bias, requantized."""
    _, y_zero, low, high, twice = ends
    value = value + b[k] if b.shape[0] else value
    return saturated(requantized(value, multiplier[k], shift[k], twice) + y_zero, low, high, y)


def as_it_is(value, k, y, b, first, second, ends):
    """A sum with its bias."""
    return value + b[k] if b.shape[0] else value


def with_aligned_bias(value, k, y, b, exponent, second, ends):
    """A sum with its bias, which is shifted to the exponent of the sums; exponent: of x, (1,)."""
    return value + aligned(b[k], 0, exponent[0]) if b.shape[0] else value


def scaled(value, k, y, b, x_scale, w_scale, ends):
    """A sum times both scales, (1,), in y's format, with its bias."""
    product = x_scale[0] * w_scale[0] * y.dtype.type(value)
    return product + b[k] if b.shape[0] else product


def words_forward(tile: Tile, dtype):
    """y (pixels, K) of maps and weights of 8 bits, requantized to int8, or its sums in int32 where y is of these."""
    return _forward(tile, as_it_is if dtype == np.int32 else in_bytes, False)


def wide_words_forward(tile: Tile, dtype):
    """The same of weights of 16 bits."""
    return _forward(tile, as_it_is if dtype == np.int32 else in_bytes, True)


def exponent_words_forward(tile: Tile, dtype):
    """Sums in int32 of numbers that share exponents."""
    return _forward(tile, with_aligned_bias, False)


def scaled_words_forward(tile: Tile, dtype):
    """Floats from maps and weights of one scale each."""
    return _forward(tile, scaled, False)


def _forward(tile: Tile, result, wide: bool):
    """A tile of pixels and outputs of a group a block; depth counts words. result: what becomes of a sum."""
    rows, columns, depth, each_row, each_column = tile
    down, across, threads = tile.down, tile.across, tile.threads
    loads, lanes = rows * depth // threads, threads // depth
    more, line = columns * depth // threads, threads // columns
    own_shape, other_shape = (depth, rows + 1), (depth, columns)
    high_shape, each = (depth if wide else 1, columns), (each_row, each_column)
    bits, result = 16 if wide else 8, device(result)

    @jit
    def kernel(y, x, w, b, first, second, geometry, ends):
        height, width, out_h, out_w, groups, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
        x_zero = ends[0]
        own = cuda.shared.array(own_shape, np.int32)  # each on a line of its own: the simulator tells them apart by it
        other = cuda.shared.array(other_shape, np.int32)
        upper = cuda.shared.array(high_shape, np.int32)
        total = cuda.local.array(each, np.int32)
        taken = cuda.local.array(each_column, np.int32)
        place = cuda.shared.array(rows, np.int32)
        t = cuda.threadIdx.x
        top, side, group = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns, cuda.blockIdx.z
        channels, outputs = w.shape[2], w.shape[3] // groups
        for j in range(each_column):
            taken[j] = 0
            for i in range(each_row):
                total[i, j] = 0
        rest, q = divmod(top + t, out_w)
        n, p = divmod(rest, out_h)
        mine = t < rows and top + t < y.shape[0]
        for r in range(taps_h):
            for s in range(taps_w):
                if t < rows:
                    h, v = p * up_h - above + r * apart_h, q * up_w - left + s * apart_w
                    inside = mine and 0 <= h and h < height and 0 <= v and v < width
                    place[t] = (n * height + h) * width + v if inside else -1
                cuda.syncthreads()
                for start in range(0, channels, 4 * depth):
                    c = start + t % depth * 4
                    for i in range(loads):
                        word, there = 0, place[t // depth + lanes * i]
                        for e in range(4):
                            value = x_zero
                            if there >= 0 and c + e < channels:
                                value = np.int64(x[there, group * channels + c + e])
                            word |= (value & 255) << (8 * e)
                        own[t % depth, t // depth + lanes * i] = signed(word)
                    k = side + t % columns
                    for i in range(more):
                        d, word, over = t // columns + line * i, 0, 0
                        for e in range(4):
                            value = 0
                            if start + d * 4 + e < channels and k < outputs:
                                value = np.int64(w[r, s, start + d * 4 + e, group * outputs + k])
                            word |= (value & 255) << (8 * e)
                            over |= ((value >> 8) & 255) << (8 * e)
                        other[d, t % columns] = signed(word)
                        if bits == 16:
                            upper[d, t % columns] = signed(over)
                    cuda.syncthreads()
                    for d in range(depth):
                        for j in range(each_column):
                            lower = other[d, t % across + across * j]
                            if bits == 16:
                                over = upper[d, t % across + across * j]
                                for i in range(each_row):
                                    mapped = own[d, t // across + down * i]
                                    total[i, j] += dot4(mapped, over, 0) * 256
                                    total[i, j] = dot4_unsigned(mapped, lower, total[i, j])
                                if x_zero != 0:
                                    taken[j] += dot4(ONES, over, 0) * 256
                                    taken[j] = dot4_unsigned(ONES, lower, taken[j])
                            else:
                                for i in range(each_row):
                                    total[i, j] = dot4(own[d, t // across + down * i], lower, total[i, j])
                                if x_zero != 0:
                                    taken[j] = dot4(ONES, lower, taken[j])
                    cuda.syncthreads()
        for i in range(each_row):
            row = top + t // across + down * i
            for j in range(each_column):
                k = side + t % across + across * j
                if row < y.shape[0] and k < outputs:
                    k += group * outputs
                    value = np.int64(total[i, j]) - np.int64(x_zero) * taken[j]
                    y[row, k] = result(value, k, y, b, first, second, ends)

    return kernel


def _shape(y, x, w, b, first, second, geometry, ends) -> tuple[int, int, int, int]:
    return y.shape[0], w.shape[3] // geometry[4], up(w.shape[2], EACH), geometry[4]


def _products(y, x, w, b, first, second, geometry, ends) -> Ops:
    """Each dot as four products, those of the zero point too, and the zero point of each output."""
    rows, columns, words, groups = _shape(y, x, w, b, first, second, geometry, ends)
    tile, bytes_ = tile_of(rows, columns, words), w.dtype.itemsize
    filled = up(rows, tile.rows) * tile.rows * up(columns, tile.columns) * tile.columns * groups
    dots = filled + (filled / tile.each_row if ends[0] else 0)
    terms = w.shape[0] * w.shape[1] * up(words, tile.depth) * tile.depth * EACH * bytes_
    return IMAC * (dots * terms + y.shape[0] * y.shape[1])


def _executes(y, x, w, b, multiplier, shift, geometry, ends) -> Ops:
    put = Ops() if y.dtype == np.int32 else IMUL + IADD * (6 if ends[4] else 4)
    outputs = (IADD * bool(b.shape[0]) + put) * (y.shape[0] * y.shape[1])
    return _products(y, x, w, b, multiplier, shift, geometry, ends) + outputs


def _aligns(*args) -> Ops:
    return _products(*args) + OF_BIAS * (args[0].shape[0] * args[0].shape[1] * bool(args[3].shape[0]))


def _scales(*args) -> Ops:
    return _products(*args) + (MUL * 2 + ADD * bool(args[3].shape[0])) * (args[0].shape[0] * args[0].shape[1])


FORWARD = executes(_executes)(Tiled(words_forward, _shape))
WIDE_FORWARD = executes(_executes)(Tiled(wide_words_forward, _shape))
EXPONENT_FORWARD = executes(_aligns)(Tiled(exponent_words_forward, _shape))
SCALED_FORWARD = executes(_scales)(Tiled(scaled_words_forward, _shape))
