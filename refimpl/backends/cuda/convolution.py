"""Convolution and its gradients as products on tiles; a map's pixels are found where they lie, none is copied.

Maps are seen as (pixels, channels). Of a convolution with kernel R×S in G groups a tile's sum goes tap by tap, over the
channels of the group: for each tap a thread finds once which pixel each of its rows reads, or that it lies in the
padding and counts as zero. The gradient of the weights sums over pixels, in slices where its tiles are too few.

What follows forward (a frozen norm's scale and shift or a bias, another branch, a rectifier) is done on the results in
registers; a gradient dy that comes through a rectifier's mask or a frozen norm's scale is read through them.
"""

from functools import cache

import numpy as np

from ...compiler.executed import NOTHING, Ops, executes
from ...kernels.cuda import at, device, jit, simulated
from ...kernels.cuda import late as cuda
from ..activation import RELU, RELU6
from .tile import ALIGNED, Tile, Tiled, adder, handing_over, tile_of, up

BLOCKS = 512  # that keep the GPUs busy; fewer are made more by slices of the sum
PIXELS = 512  # that a slice has at least


def geometry_of(sizes: dict, attrs: dict) -> tuple[int, ...]:
    """(H, W, P, Q, G, R, S, rows apart, columns apart of outputs and of taps, rows above, columns left)."""
    letters = (sizes[letter] for letter in "HWPQGRS")
    return (*map(int, (*letters, *attrs["stride"], *attrs["dilation"], attrs["pad"][0][0], attrs["pad"][1][0])),)


@cache
def finishing(tile: Tile, dtype):
    """Device function that writes what becomes of a tile's sums: y ← act(scale · result + shift + residual).

    result (rows, columns), in shared memory, of the pixels from `top` on and the outputs of a group from `side` on.
    """
    rows, columns, line = tile.rows, tile.columns, tile.threads // tile.columns
    zero, six = dtype(0), dtype(6)

    def finish(y, result, scale, shift, residual, act, top, side, group, outputs, t):
        k = side + t % columns
        if k < outputs:
            k += group * outputs
            for rounds in range(rows // line):
                i = t // columns + line * rounds
                if top + i < y.shape[0]:
                    value = result[i, t % columns]
                    if scale.shape[0]:
                        value *= scale[at(k)]
                    if shift.shape[0]:
                        value += shift[at(k)]
                    if residual.shape[0]:
                        value += residual[at(top + i), at(k)]
                    if act >= RELU:
                        value = zero if value <= zero else value
                    if act == RELU6:
                        value = six if value >= six else value
                    y[at(top + i), at(k)] = value

    return device(finish)


@cache
def arriving(dtype):
    """Device function `(dy, mask, scale, row, k, samples, i, pixels)`: dy, (N·pixels, K), of an output of a pixel.

    It comes through a rectifier's mask and a frozen norm's scale, either of which may be empty. samples[i] is looked at
    for a mask alone: the sample that the pixel is of.
    """
    zero = dtype(0)

    def arrive(dy, mask, scale, row, k, samples, i, pixels):
        value = dy[at(row), at(k)]
        if scale.shape[0]:
            value *= scale[at(k)]
        if mask.shape[0]:
            n = samples[i]
            e = (row - n * pixels) * dy.shape[1] + k
            value = value if (mask[at(n), at(e >> 3)] >> (e & 7)) & 1 else zero
        return value

    return device(arrive)


def forward(tile: Tile, dtype):
    """y (pixels, K) ← act(scale · (x ∗ w) + shift + residual), a tile of pixels and channels of a group a block."""
    rows, columns, depth, each_row, each_column = tile
    threads, result_shape, each = tile.threads, (rows, columns), (each_row, each_column)
    loads, lanes = rows * depth // threads, threads // depth
    more, line = columns * depth // threads, threads // columns
    own_shape, other_shape = tile.own, tile.other
    zero, add, hand_over, finish = dtype(0), adder(tile), handing_over(tile), finishing(tile, dtype)

    @jit
    def kernel(y, x, w, scale, shift, residual, geometry, act):
        height, width, out_h, out_w, groups, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
        own = cuda.shared.array(own_shape, dtype, ALIGNED)  # each on a line: the simulator knows them by it
        other = cuda.shared.array(other_shape, dtype, ALIGNED)
        result = cuda.shared.array(result_shape, dtype, ALIGNED)
        total = cuda.local.array(each, dtype)
        place = cuda.shared.array(rows, np.int32)
        t = cuda.threadIdx.x
        top, side, group = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns, cuda.blockIdx.z
        channels, outputs = w.shape[2], w.shape[3] // groups
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = zero
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
                for start in range(0, channels, depth):
                    c = start + t % depth
                    for i in range(loads):
                        value, there = zero, place[t // depth + lanes * i]
                        if there >= 0 and c < channels:
                            value = x[at(there), at(group * channels + c)]
                        own[t % depth, t // depth + lanes * i] = value
                    k = side + t % columns
                    for i in range(more):
                        c = start + t // columns + line * i
                        value = zero
                        if c < channels and k < outputs:
                            value = w[at(r), at(s), at(c), at(group * outputs + k)]
                        other[t // columns + line * i, t % columns] = value
                    cuda.syncthreads()
                    add(total, own, other, t)
                    cuda.syncthreads()
        hand_over(result, total, t)
        cuda.syncthreads()
        finish(y, result, scale, shift, residual, act, top, side, group, outputs, t)

    return kernel


def grad_x(tile: Tile, dtype):
    """dx (pixels, C) ← the sum over taps and outputs of dy · w, a tile of pixels and channels of a group a block."""
    rows, columns, depth, each_row, each_column = tile
    threads, result_shape, each = tile.threads, (rows, columns), (each_row, each_column)
    loads, lanes = rows * depth // threads, threads // depth
    more, line = columns * depth // threads, threads // columns
    own_shape, other_shape = tile.own, tile.other
    zero, add, hand_over, arrive = dtype(0), adder(tile), handing_over(tile), arriving(dtype)

    @jit
    def kernel(dx, dy, mask, scale, kept, w, geometry):
        height, width, out_h, out_w, groups, taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left = geometry
        own = cuda.shared.array(own_shape, dtype, ALIGNED)  # each on a line: the simulator knows them by it
        other = cuda.shared.array(other_shape, dtype, ALIGNED)
        result = cuda.shared.array(result_shape, dtype, ALIGNED)
        total = cuda.local.array(each, dtype)
        place = cuda.shared.array(rows, np.int32)
        sample = cuda.shared.array(rows, np.int32)
        t = cuda.threadIdx.x
        top, side, group = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns, cuda.blockIdx.z
        channels, outputs = w.shape[2], w.shape[3] // groups
        if kept.shape[0]:
            outputs = kept.shape[0]  # of one group
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = zero
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
                            place[t] = p * out_w + q
                cuda.syncthreads()
                for start in range(0, outputs, depth):
                    k = group * outputs + start + t % depth
                    there = start + t % depth < outputs
                    if there and kept.shape[0]:
                        k = kept[k]
                    for i in range(loads):
                        value, pixel = zero, place[t // depth + lanes * i]
                        if pixel >= 0 and there:
                            row = sample[t // depth + lanes * i] * out_h * out_w + pixel
                            value = arrive(dy, mask, scale, row, k, sample, t // depth + lanes * i, out_h * out_w)
                        own[t % depth, t // depth + lanes * i] = value
                    for i in range(more):
                        c = side + t // depth + lanes * i
                        value = zero
                        if c < channels and there:
                            value = w[at(r), at(s), at(c), at(k)]
                        other[t % depth, t // depth + lanes * i] = value
                    cuda.syncthreads()
                    add(total, own, other, t)
                    cuda.syncthreads()
        hand_over(result, total, t)
        cuda.syncthreads()
        c = side + t % columns
        if c < channels:
            for rounds in range(rows // line):
                i = t // columns + line * rounds
                if top + i < dx.shape[0]:
                    dx[at(top + i), at(group * channels + c)] = result[i, t % columns]

    return kernel


def grad_w(tile: Tile, dtype):
    """dw (slices, R, S, C/G, K), each the sum over `length` output pixels; a tile of channels and outputs a block."""
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
        place = cuda.shared.array(threads, np.int32)
        sample = cuda.shared.array(threads, np.int32)
        total = cuda.local.array(each, dtype)
        t = cuda.threadIdx.x
        top, side = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns
        rest, group = divmod(cuda.blockIdx.z, groups)
        rest, s = divmod(rest, taps_w)
        piece, r = divmod(rest, taps_h)
        channels, outputs = dw.shape[3], dw.shape[4] // groups
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = zero
        k = group * outputs + side + t % columns
        if kept.shape[0] and k < outputs:
            k = kept[k]  # of one group
        end = (piece + 1) * length
        if end > dy.shape[0]:
            end = dy.shape[0]
        for begin in range(piece * length, end, threads):
            place[t], sample[t] = -1, 0
            if begin + t < end:
                rest, q = divmod(begin + t, out_w)
                n, p = divmod(rest, out_h)
                h, v = p * up_h - above + r * apart_h, q * up_w - left + s * apart_w
                sample[t] = n
                if 0 <= h and h < height and 0 <= v and v < width:
                    place[t] = (n * height + h) * width + v
            cuda.syncthreads()
            for start in range(0, threads, depth):
                if begin + start < end:
                    c = top + t % rows
                    for i in range(loads):
                        d = t // rows + lanes * i
                        value = zero
                        if place[start + d] >= 0 and c < channels:
                            value = x[at(place[start + d]), at(group * channels + c)]
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
                if top + i < channels:
                    dw[piece, r, s, top + i, group * outputs + k] = result[i, t % columns]

    return kernel


def slices_of(sizes: dict, together: int = 0, longest: int | None = None) -> tuple[int, int]:
    """Into how many slices the sum of a gradient of weights is cut, and the output pixels of each.

    together: pixels that no cut parts, 0 for those of a piece of the sum. longest: pixels of a slice.
    """
    pixels, channels, outputs = sizes["N"] * sizes["P"] * sizes["Q"], sizes["C"] // sizes["G"], sizes["K"] // sizes["G"]
    tile = tile_of(channels, outputs, pixels)
    blocks = up(channels, tile.rows) * up(outputs, tile.columns) * sizes["R"] * sizes["S"] * sizes["G"]
    most = 2 if simulated() else max(1, pixels // PIXELS)
    unit = together or tile.depth
    length = up(up(pixels, min(up(BLOCKS, blocks), most)), unit) * unit
    length = length if longest is None else min(length, longest // unit * unit)
    return up(pixels, length), length


def _forward_result(y, x, w, scale, shift, residual, geometry, act) -> tuple[int, int, int, int]:
    return y.shape[0], w.shape[3] // geometry[4], w.shape[2], geometry[4]


def _grad_x_result(dx, dy, mask, scale, kept, w, geometry) -> tuple[int, int, int, int]:
    return dx.shape[0], w.shape[2], (kept.shape[0] or w.shape[3]) // geometry[4], geometry[4]


def _grad_w_result(dw, dy, mask, scale, kept, x, geometry, length) -> tuple[int, int, int, int]:
    many = dw.shape[0] * dw.shape[1] * dw.shape[2] * geometry[4]
    return dw.shape[3], dw.shape[4] // geometry[4], length, many


def _forward_executes(y, x, w, scale, shift, residual, geometry, act) -> Ops:
    rows, columns, terms, groups = _forward_result(y, x, w, scale, shift, residual, geometry, act)
    tile = tile_of(rows, columns, terms, y.dtype)
    done = tile.macs(rows, columns, w.shape[0] * w.shape[1] * up(terms, tile.depth) * tile.depth) * groups
    return done + after_sum(y, scale, shift, residual)


def after_sum(y, scale, shift, residual) -> Ops:
    """What `finishing` executes."""
    after = Ops(mul=bool(scale.shape[0]), add=bool(shift.shape[0]) + bool(residual.shape[0]))
    return after * (y.shape[0] * y.shape[1])


def _grad_x_executes(dx, dy, mask, scale, kept, w, geometry) -> Ops:
    rows, columns, terms, groups = _grad_x_result(dx, dy, mask, scale, kept, w, geometry)
    tile, taps = tile_of(rows, columns, terms, dx.dtype), w.shape[0] * w.shape[1]
    done = tile.macs(rows, columns, taps * up(terms, tile.depth) * tile.depth) * groups
    scaled = up(rows, tile.rows) * up(columns, tile.columns) * tile.rows * taps * (kept.shape[0] or w.shape[3])
    return done + (Ops(mul=1) * scaled if scale.shape[0] else NOTHING)


def _grad_w_executes(dw, dy, mask, scale, kept, x, geometry, length) -> Ops:
    rows, columns, _, many = _grad_w_result(dw, dy, mask, scale, kept, x, geometry, length)
    tile, taps = tile_of(rows, columns, length, dw.dtype), many // dw.shape[0]
    slices = (min(length, dy.shape[0] - first) for first in range(0, dy.shape[0], length))
    done = tile.macs(rows, columns, sum(up(n, tile.depth) * tile.depth for n in slices)) * taps
    scaled = up(rows, tile.rows) * up(columns, tile.columns) * taps * dy.shape[0] * columns
    return done + (Ops(mul=1) * scaled if scale.shape[0] else NOTHING)


FORWARD = executes(_forward_executes)(Tiled(forward, _forward_result))
GRAD_X = executes(_grad_x_executes)(Tiled(grad_x, _grad_x_result))
GRAD_W = executes(_grad_w_executes)(Tiled(grad_w, _grad_w_result))
