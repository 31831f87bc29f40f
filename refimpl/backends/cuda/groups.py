"""Products of two tensors on tiles, one for each sample and group; what is transposed is read where it lies."""

import numpy as np

from ...compiler.executed import Ops, executes
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...kernels.cuda import jit
from ...kernels.cuda import late as cuda
from ...ops import matmul
from .tile import ALIGNED, Tile, Tiled, adder, handing_over, tile_of, up


def products(tile: Tile, dtype):
    """c (N, G, m, n) ← a (N, G, m, k) · b (N, G, k, n), a tile of a group a block.

    sizes: m, n and k; strides: elements from a row of a to the next and from a column, and the same of b. Threads that
    load neighbouring elements of a factor go along the side on which its elements lie together.
    """
    rows, columns, depth, each_row, each_column = tile
    threads, result_shape, each = tile.threads, (rows, columns), (each_row, each_column)
    loads, more = rows * depth // threads, columns * depth // threads
    own_shape, other_shape, line = tile.own, tile.other, threads // columns
    zero, add, hand_over = dtype(0), adder(tile), handing_over(tile)

    @jit
    def kernel(c, a, b, sizes, strides):
        m, n, k = sizes
        a_row, a_step, b_step, b_column = strides
        own = cuda.shared.array(own_shape, dtype, ALIGNED)  # each on a line: the simulator knows them by it
        other = cuda.shared.array(other_shape, dtype, ALIGNED)
        result = cuda.shared.array(result_shape, dtype, ALIGNED)
        total = cuda.local.array(each, dtype)
        t = cuda.threadIdx.x
        top, side, group = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns, cuda.blockIdx.z
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = zero
        for start in range(0, k, depth):
            for i in range(loads):
                place = t + threads * i
                row, d = (place // depth, place % depth) if a_step == 1 else (place % rows, place // rows)
                value = zero
                if top + row < m and start + d < k:
                    value = a[group * m * k + (top + row) * a_row + (start + d) * a_step]
                own[d, row] = value
            for i in range(more):
                place = t + threads * i
                column, d = (place // depth, place % depth) if b_step == 1 else (place % columns, place // columns)
                value = zero
                if side + column < n and start + d < k:
                    value = b[group * k * n + (start + d) * b_step + (side + column) * b_column]
                other[d, column] = value
            cuda.syncthreads()
            add(total, own, other, t)
            cuda.syncthreads()
        hand_over(result, total, t)
        cuda.syncthreads()
        column = side + t % columns
        if column < n:
            for rounds in range(rows // line):
                i = t // columns + line * rounds
                if top + i < m:
                    c[group * m * n + (top + i) * n + column] = result[i, t % columns]

    return kernel


def _result(c, a, b, sizes, strides) -> tuple[int, int, int, int]:
    m, n, k = sizes
    return m, n, k, c.shape[0] // (m * n) if m * n else 0


def _executes(c, a, b, sizes, strides) -> Ops:
    rows, columns, terms, many = _result(c, a, b, sizes, strides)
    tile = tile_of(rows, columns, terms, c.dtype)
    return tile.macs(rows, columns, up(terms, tile.depth) * tile.depth) * many


PRODUCTS = executes(_executes)(Tiled(products, _result))


def of_groups(lowering: Lowering, call: Call) -> list[Launch]:
    """A product of two tensors, or one of its gradients."""
    z, arrays, transposed = call.sizes, call.arrays, call.attrs["transposed"]
    rows, depth, columns = z["P"], z["D"], z["K"]
    if call.passed is matmul.forward:
        c, a, b = "y", "a", "b"
        sizes = rows, columns, depth
        strides = (depth, 1, *((1, depth) if transposed else (columns, 1)))
    elif call.passed is matmul.grad_a:
        c, a, b = "da", "dy", "b"
        sizes = rows, depth, columns
        strides = (columns, 1, *((depth, 1) if transposed else (1, columns)))
    elif transposed:
        c, a, b = "db", "dy", "a"
        sizes, strides = (columns, depth, rows), (1, columns, depth, 1)
    else:
        c, a, b = "db", "a", "dy"
        sizes, strides = (depth, columns, rows), (1, depth, columns, 1)
    flat = [arrays[name].reshape((int(np.prod(arrays[name].shape)),)) for name in (c, a, b)]
    return [Launch(call.name, PRODUCTS, (*flat, sizes, strides), tuple(flat[1:]), (flat[0],), (call,))]


RULES = {of_groups: (matmul.forward, matmul.grad_a, matmul.grad_b)}  # rule → the passes of the calls that it begins at
