"""Convolutions of few channels a group, such as those that read an image: their sums go over taps and channels at once.

Tap by tap, as in `convolution`, most of a piece of the sum would be zeros. Here its terms are all channels of all taps:
a term says by which rows and columns of the map its tap lies off, and which channel it is of.
"""

import numpy as np

from ...compiler.executed import MUL, NOTHING, Ops, executes
from ...kernels.cuda import at, jit
from ...kernels.cuda import late as cuda
from .convolution import after_sum, arriving, finishing
from .tile import ALIGNED, Tile, Tiled, adder, handing_over, tile_of, up

MOST_TERMS = 512  # of a sum, which lie in shared memory


def forward_of_few(tile: Tile, dtype):
    """y (pixels, K) ← act(scale · (x ∗ w) + shift + residual), w (R·S·C/G, K); at most MOST_TERMS terms."""
    rows, columns, depth, each_row, each_column = tile
    threads, result_shape, each = tile.threads, (rows, columns), (each_row, each_column)
    loads, lanes = rows * depth // threads, threads // depth
    more, line = columns * depth // threads, threads // columns
    own_shape, other_shape, terms_shape = tile.own, tile.other, (3, MOST_TERMS)
    zero, add, hand_over, finish = dtype(0), adder(tile), handing_over(tile), finishing(tile, dtype)

    @jit
    def kernel(y, x, w, scale, shift, residual, geometry, act):
        height, width, out_h, out_w, groups, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
        own = cuda.shared.array(own_shape, dtype, ALIGNED)  # each on a line: the simulator knows them by it
        other = cuda.shared.array(other_shape, dtype, ALIGNED)
        result = cuda.shared.array(result_shape, dtype, ALIGNED)
        term = cuda.shared.array(terms_shape, np.int32)  # rows and columns off, and the channel
        sample = cuda.shared.array(rows, np.int32)  # where the map begins that a row of the tile reads, −1 for none
        high = cuda.shared.array(rows, np.int32)
        wide = cuda.shared.array(rows, np.int32)
        total = cuda.local.array(each, dtype)
        t = cuda.threadIdx.x
        top, side, group = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns, cuda.blockIdx.z
        terms, outputs = w.shape[0], w.shape[1] // groups
        channels = terms // (taps_h * taps_w)
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = zero
        e = t
        while e < terms:
            tap, c = divmod(e, channels)
            r, s = divmod(tap, taps_w)
            term[0, e], term[1, e], term[2, e] = r * apart_h, s * apart_w, group * channels + c
            e += threads
        if t < rows:
            rest, q = divmod(top + t, out_w)
            n, p = divmod(rest, out_h)
            sample[t] = n * height * width if top + t < y.shape[0] else -1
            high[t], wide[t] = p * up_h - above, q * up_w - left
        cuda.syncthreads()
        for start in range(0, terms, depth):
            e = start + t % depth
            for i in range(loads):
                row, value = t // depth + lanes * i, zero
                if e < terms and sample[row] >= 0:
                    h, v = high[row] + term[0, e], wide[row] + term[1, e]
                    if 0 <= h and h < height and 0 <= v and v < width:
                        value = x[at(sample[row] + h * width + v), at(term[2, e])]
                own[t % depth, row] = value
            k = side + t % columns
            for i in range(more):
                e = start + t // columns + line * i
                value = zero
                if e < terms and k < outputs:
                    value = w[at(e), at(group * outputs + k)]
                other[t // columns + line * i, t % columns] = value
            cuda.syncthreads()
            add(total, own, other, t)
            cuda.syncthreads()
        hand_over(result, total, t)
        cuda.syncthreads()
        finish(y, result, scale, shift, residual, act, top, side, group, outputs, t)

    return kernel


def grad_w_of_few(tile: Tile, dtype):
    """dw (slices, R, S, C/G, K), each the sum over `length` output pixels; a tile of terms and outputs a block."""
    rows, columns, depth, each_row, each_column = tile
    threads, result_shape, each = tile.threads, (rows, columns), (each_row, each_column)
    loads, lanes = rows * depth // threads, threads // rows
    more, line = columns * depth // threads, threads // columns
    own_shape, other_shape = tile.own, tile.other
    zero, add, hand_over, arrive = dtype(0), adder(tile), handing_over(tile), arriving(dtype)

    @jit
    def kernel(dw, dy, mask, scale, kept, x, geometry, length):
        height, width, out_h, out_w, groups, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
        own = cuda.shared.array(own_shape, dtype, ALIGNED)  # each on a line: the simulator knows them by it
        other = cuda.shared.array(other_shape, dtype, ALIGNED)
        result = cuda.shared.array(result_shape, dtype, ALIGNED)
        sample = cuda.shared.array(threads, np.int32)  # of an output pixel, −1 for none
        high = cuda.shared.array(threads, np.int32)
        wide = cuda.shared.array(threads, np.int32)
        total = cuda.local.array(each, dtype)
        t = cuda.threadIdx.x
        top, side = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        piece, group = divmod(cuda.blockIdx.z, groups)
        channels, outputs = dw.shape[3], dw.shape[4] // groups
        terms = taps_h * taps_w * channels
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = zero
        tap, c = divmod(top + t % rows, channels)
        r, s = divmod(tap, taps_w)
        k = group * outputs + side + t % columns
        if kept.shape[0] and side + t % columns < outputs:
            k = kept[k]  # of one group
        end = (piece + 1) * length
        if end > dy.shape[0]:
            end = dy.shape[0]
        for begin in range(piece * length, end, threads):
            sample[t], high[t], wide[t] = -1, 0, 0
            if begin + t < end:
                rest, q = divmod(begin + t, out_w)
                n, p = divmod(rest, out_h)
                sample[t], high[t], wide[t] = n, p * up_h - above, q * up_w - left
            cuda.syncthreads()
            for start in range(0, threads, depth):
                if begin + start < end:
                    for i in range(loads):
                        d, value = t // rows + lanes * i, zero
                        h, v = high[start + d] + r * apart_h, wide[start + d] + s * apart_w
                        inside = 0 <= h and h < height and 0 <= v and v < width
                        if inside and sample[start + d] >= 0 and top + t % rows < terms:
                            value = x[at((sample[start + d] * height + h) * width + v), at(group * channels + c)]
                        own[d, t % rows] = value
                    for i in range(more):
                        d = t // columns + line * i
                        row = begin + start + d
                        value = zero
                        if row < end and side + t % columns < outputs:
                            value = arrive(dy, mask, scale, row, k, sample, start + d, out_h * out_w)
                        other[d, t % columns] = value
                cuda.syncthreads()
                if begin + start < end:
                    add(total, own, other, t)
                cuda.syncthreads()
        hand_over(result, total, t)
        cuda.syncthreads()
        k = side + t % columns
        if k < outputs:
            for rounds in range(rows // line):
                i = t // columns + line * rounds
                if top + i < terms:
                    tap, c = divmod(top + i, channels)
                    r, s = divmod(tap, taps_w)
                    dw[piece, r, s, c, group * outputs + k] = result[i, t % columns]

    return kernel


def _forward_result(y, x, w, scale, shift, residual, geometry, act) -> tuple[int, int, int, int]:
    return y.shape[0], w.shape[1] // geometry[4], w.shape[0], geometry[4]


def _grad_w_result(dw, dy, mask, scale, kept, x, geometry, length) -> tuple[int, int, int, int]:
    return dw.shape[1] * dw.shape[2] * dw.shape[3], dw.shape[4] // geometry[4], length, dw.shape[0] * geometry[4]


def _forward_executes(y, x, w, scale, shift, residual, geometry, act) -> Ops:
    rows, columns, terms, groups = _forward_result(y, x, w, scale, shift, residual, geometry, act)
    tile = tile_of(rows, columns, terms, y.dtype)
    return tile.macs(rows, columns, up(terms, tile.depth) * tile.depth) * groups + after_sum(y, scale, shift, residual)


def _grad_w_executes(dw, dy, mask, scale, kept, x, geometry, length) -> Ops:
    rows, columns, _, many = _grad_w_result(dw, dy, mask, scale, kept, x, geometry, length)
    tile, groups = tile_of(rows, columns, length, dw.dtype), geometry[4]
    slices = (min(length, dy.shape[0] - first) for first in range(0, dy.shape[0], length))
    done = tile.macs(rows, columns, sum(up(n, tile.depth) * tile.depth for n in slices)) * groups
    scaled = up(rows, tile.rows) * groups * dy.shape[0] * columns
    return done + (MUL * scaled if scale.shape[0] else NOTHING)


FORWARD = executes(_forward_executes)(Tiled(forward_of_few, _forward_result))
GRAD_W = executes(_grad_w_executes)(Tiled(grad_w_of_few, _grad_w_result))
