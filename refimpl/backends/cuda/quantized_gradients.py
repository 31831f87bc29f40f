"""Gradients of convolutions and linear layers in whole numbers on tiles, with dots of four bytes (`dp4a`).

A gradient dy of 8 bits meets weights or a map of 8 bits. Of dx a word holds four outputs, which lie side by side in dy
and in w. Of dw it holds four pixels, whose bytes are gathered on the way into shared memory. Sums in int32 are those of
the reference kernels, to the bit.

Where dy has scales, sums are made floats by them: of dw each run of pixels that share a scale, in their order. A dy of
16 bits is two bytes, dy = 256·high + low with low from 0 to 255, and has two sums. The zero point of x is taken off
behind the sum as in `quantized`, Σ (x − x_zero)·dy = Σ x·dy − x_zero·Σ dy, where a tap in the padding counts as x_zero.
"""

import numpy as np

from ...compiler.executed import IMAC, MAC, MUL, NOTHING, Ops, executes, pieces
from ...kernels.cuda import dot4, dot4_unsigned, jit
from ...kernels.cuda import late as cuda
from .quantized import EACH, ONES, signed
from .tile import Tile, Tiled, tile_of, up

LONGEST = (2**31 - 1) // (255 * 128)  # products of a byte from 0 to 255 and one of x whose sum fits into int32


def words_grad_x(tile: Tile, dtype):
    """dx (pixels, C) ← dy_scale · w_scale · the sum over taps and outputs of dy · w, both of 8 bits."""
    return _grad_x(tile, dtype, False)


def word_sums_grad_x(tile: Tile, dtype):
    """The sums alone, in int32."""
    return _grad_x(tile, dtype, True)


def _grad_x(tile: Tile, dtype, sums: bool):
    """A tile of pixels and channels of a group a block; depth counts words."""
    rows, columns, depth, each_row, each_column = tile
    down, across, threads = tile.down, tile.across, tile.threads
    loads, lanes = rows * depth // threads, threads // depth
    more = columns * depth // threads
    own_shape, other_shape, each = (depth, rows + 1), (depth, columns + 1), (each_row, each_column)

    @jit
    def kernel(dx, dy, w, dy_scale, w_scale, geometry):
        height, width, out_h, out_w, groups, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
        own = cuda.shared.array(own_shape, np.int32)  # each on a line of its own: the simulator tells them apart by it
        other = cuda.shared.array(other_shape, np.int32)
        total = cuda.local.array(each, np.int32)
        place = cuda.shared.array(rows, np.int32)
        sample = cuda.shared.array(rows, np.int32)
        t = cuda.threadIdx.x
        top, side, group = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns, cuda.blockIdx.z
        channels, outputs = w.shape[2], w.shape[3] // groups
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = 0
        rest, v = divmod(top + t, width)
        n, h = divmod(rest, height)
        if t < rows:
            sample[t] = n
        for r in range(taps_h):
            for s in range(taps_w):
                if t < rows:
                    place[t] = -1
                    p, more_h = divmod(h + above - r * apart_h, up_h)
                    q, more_w = divmod(v + left - s * apart_w, up_w)
                    if top + t < dx.shape[0] and more_h == 0 and more_w == 0:
                        if 0 <= p and p < out_h and 0 <= q and q < out_w:
                            place[t] = (n * out_h + p) * out_w + q
                cuda.syncthreads()
                for start in range(0, outputs, 4 * depth):
                    k = start + t % depth * 4
                    for i in range(loads):
                        word, there = 0, place[t // depth + lanes * i]
                        if there >= 0:
                            for e in range(4):
                                if k + e < outputs:
                                    word |= (np.int64(dy[there, group * outputs + k + e]) & 255) << (8 * e)
                        own[t % depth, t // depth + lanes * i] = signed(word)
                    for i in range(more):
                        word, c = 0, side + t // depth + lanes * i
                        if c < channels:
                            for e in range(4):
                                if k + e < outputs:
                                    word |= (np.int64(w[r, s, c, group * outputs + k + e]) & 255) << (8 * e)
                        other[t % depth, t // depth + lanes * i] = signed(word)
                    cuda.syncthreads()
                    for d in range(depth):
                        for i in range(each_row):
                            given = own[d, t // across + down * i]
                            for j in range(each_column):
                                total[i, j] = dot4(given, other[d, t % across + across * j], total[i, j])
                    cuda.syncthreads()
        for i in range(each_row):
            row = top + t // across + down * i
            for j in range(each_column):
                c = side + t % across + across * j
                if row < dx.shape[0] and c < channels:
                    if sums:
                        dx[row, group * channels + c] = total[i, j]
                    else:
                        factor = dy_scale[sample[row - top]]
                        if w_scale.shape[0]:
                            factor *= w_scale[0]
                        dx[row, group * channels + c] = factor * dtype(total[i, j])

    return kernel


def words_grad_w(tile: Tile, dtype):
    """dw (slices, R, S, C/G, K) ← x_scale · Σ dy_scale · the sums over runs of pixels of x and dy, both of 8 bits."""
    return _grad_w(tile, dtype, False, False)


def wide_words_grad_w(tile: Tile, dtype):
    """The same of a dy of 16 bits."""
    return _grad_w(tile, dtype, True, False)


def word_sums_grad_w(tile: Tile, dtype):
    """The sums over `length` pixels alone, in int32, of x and dy of 8 bits."""
    return _grad_w(tile, dtype, False, True)


def _grad_w(tile: Tile, dtype, wide: bool, sums: bool):
    """A tile of channels and outputs of a group, a tap and a slice a block; depth counts words."""
    rows, columns, depth, each_row, each_column = tile
    down, across, threads = tile.down, tile.across, tile.threads
    loads, lanes = rows * depth // threads, threads // rows
    more, line = columns * depth // threads, threads // columns
    own_shape, other_shape, each = (depth, rows), (depth, columns), (each_row, each_column)
    high_shape, high_each = (other_shape, each) if wide else ((1, columns), (1, 1))
    zero = dtype(0)

    @jit
    def kernel(dw, dy, x, dy_scale, x_scale, geometry, length, run, x_zero):
        height, width, out_h, out_w, groups, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
        own = cuda.shared.array(own_shape, np.int32)  # each on a line of its own: the simulator tells them apart by it
        other = cuda.shared.array(other_shape, np.int32)
        upper = cuda.shared.array(high_shape, np.int32)
        place = cuda.shared.array(threads, np.int32)
        whole = cuda.local.array(each, np.int32)
        higher = cuda.local.array(high_each, np.int32)
        taken = cuda.local.array(each_column, np.int32)
        total = cuda.local.array(each, dtype)
        t = cuda.threadIdx.x
        top, side = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        rest, group = divmod(cuda.blockIdx.z, groups)
        rest, s = divmod(rest, taps_w)
        piece, r = divmod(rest, taps_h)
        channels, outputs = dw.shape[3], dw.shape[4] // groups
        for j in range(each_column):
            taken[j] = 0
            for i in range(each_row):
                whole[i, j], total[i, j] = 0, zero
                if wide:
                    higher[i, j] = 0
        c, k = top + t % rows, side + t % columns
        end = (piece + 1) * length
        if end > dy.shape[0]:
            end = dy.shape[0]
        for first in range(piece * length, end, run):
            last = first + run
            if last > end:
                last = end
            for begin in range(first, last, threads):
                place[t] = -1
                if begin + t < last:
                    rest, q = divmod(begin + t, out_w)
                    n, p = divmod(rest, out_h)
                    h, v = p * up_h - above + r * apart_h, q * up_w - left + s * apart_w
                    if 0 <= h and h < height and 0 <= v and v < width:
                        place[t] = (n * height + h) * width + v
                cuda.syncthreads()
                for start in range(0, threads, 4 * depth):
                    if begin + start < last:
                        for i in range(loads):
                            d, word = t // rows + lanes * i, 0
                            if c < channels:
                                for e in range(4):
                                    value, there = x_zero, place[start + d * 4 + e]
                                    if there >= 0:
                                        value = np.int64(x[there, group * channels + c])
                                    word |= (value & 255) << (8 * e)
                            own[d, t % rows] = signed(word)
                        for i in range(more):
                            d, word, over = t // columns + line * i, 0, 0
                            if k < outputs:
                                for e in range(4):
                                    row = begin + start + d * 4 + e
                                    if row < last:
                                        value = np.int64(dy[row, group * outputs + k])
                                        word |= (value & 255) << (8 * e)
                                        over |= ((value >> 8) & 255) << (8 * e)
                            other[d, t % columns] = signed(word)
                            if wide:
                                upper[d, t % columns] = signed(over)
                    cuda.syncthreads()
                    if begin + start < last:
                        for d in range(depth):
                            for j in range(each_column):
                                lower = other[d, t % across + across * j]
                                if wide:
                                    over = upper[d, t % across + across * j]
                                    for i in range(each_row):
                                        mapped = own[d, t // across + down * i]
                                        higher[i, j] = dot4(mapped, over, higher[i, j])
                                        whole[i, j] = dot4_unsigned(mapped, lower, whole[i, j])
                                else:
                                    for i in range(each_row):
                                        whole[i, j] = dot4(own[d, t // across + down * i], lower, whole[i, j])
                                    if x_zero != 0:
                                        taken[j] = dot4(ONES, lower, taken[j])
                    cuda.syncthreads()
            if not sums:
                factor = dy_scale[first // (out_h * out_w)]
                for j in range(each_column):
                    for i in range(each_row):
                        value = np.int64(whole[i, j])
                        if wide:
                            value += np.int64(higher[i, j]) * 256
                            higher[i, j] = 0
                        if x_zero != 0:
                            value -= np.int64(x_zero) * taken[j]
                        total[i, j] += factor * dtype(value)
                        whole[i, j] = 0
                    taken[j] = 0
        for i in range(each_row):
            c = top + t // across + down * i
            for j in range(each_column):
                k = side + t % across + across * j
                if c < channels and k < outputs:
                    if sums:
                        dw[piece, r, s, c, group * outputs + k] = whole[i, j]
                    else:
                        value = total[i, j]
                        if x_scale.shape[0]:
                            value = x_scale[0] * value
                        dw[piece, r, s, c, group * outputs + k] = value

    return kernel


def _grad_x_result(dx, dy, w, dy_scale, w_scale, geometry) -> tuple[int, int, int, int]:
    return dx.shape[0], w.shape[2], up(w.shape[3] // geometry[4], EACH), geometry[4]


def _grad_w_result(dw, dy, x, dy_scale, x_scale, geometry, length, run, x_zero) -> tuple[int, int, int, int]:
    many = dw.shape[0] * dw.shape[1] * dw.shape[2] * geometry[4]
    return dw.shape[3], dw.shape[4] // geometry[4], up(run, EACH), many


def _grad_x_executes(dx, dy, w, dy_scale, w_scale, geometry) -> Ops:
    """Each dot as four products, and the scales of each result."""
    rows, columns, words, groups = _grad_x_result(dx, dy, w, dy_scale, w_scale, geometry)
    tile = tile_of(rows, columns, words)
    filled = up(rows, tile.rows) * tile.rows * up(columns, tile.columns) * tile.columns * groups
    terms = w.shape[0] * w.shape[1] * up(words, tile.depth) * tile.depth * EACH
    scaled = MUL * (bool(dy_scale.shape[0]) + bool(w_scale.shape[0]))
    return IMAC * (filled * terms) + scaled * dx.size


def _grad_w_executes(dw, dy, x, dy_scale, x_scale, geometry, length, run, x_zero) -> Ops:
    """Each dot as four products, those of the zero point too, and what scales the sums of runs and the results."""
    rows, columns, words, many = _grad_w_result(dw, dy, x, dy_scale, x_scale, geometry, length, run, x_zero)
    tile, taps, bytes_ = tile_of(rows, columns, words), many // dw.shape[0], dy.dtype.itemsize
    filled = up(rows, tile.rows) * tile.rows * up(columns, tile.columns) * tile.columns * taps
    runs = [(n, k * times) for part, times in pieces(dy.shape[0], length) for n, k in pieces(part, run)]
    terms = sum(up(n, tile.depth * EACH) * tile.depth * EACH * times for n, times in runs)
    done = IMAC * ((filled + (filled / tile.each_row if x_zero else 0)) * terms * bytes_)
    if not dy_scale.shape[0]:
        return done
    of_run = MAC + IMAC * (bytes_ - 1 + bool(x_zero))
    return done + of_run * (filled * sum(k for _, k in runs)) + (MUL * dw.size if x_scale.shape[0] else NOTHING)


GRAD_X = executes(_grad_x_executes)(Tiled(words_grad_x, _grad_x_result))
SUMS_GRAD_X = executes(_grad_x_executes)(Tiled(word_sums_grad_x, _grad_x_result))
GRAD_W = executes(_grad_w_executes)(Tiled(words_grad_w, _grad_w_result))
WIDE_GRAD_W = executes(_grad_w_executes)(Tiled(wide_words_grad_w, _grad_w_result))
SUMS_GRAD_W = executes(_grad_w_executes)(Tiled(word_sums_grad_w, _grad_w_result))
