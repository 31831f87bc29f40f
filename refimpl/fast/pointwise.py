"""1×1 convolution on the CPU, reading and writing through batch norms as `refimpl.fast.depthwise` does.

With rows m = (n, h, w):  y[m,k] = Σ_c x̂[m,c]·w[c,k],  dx[m,c] = Σ_k g[m,k]·w[c,k],  dw[c,k] = Σ_m x̂[m,c]·g[m,k]
where x̂ = act(a·x + b) and g = ∂L/∂y = A·dz + B·y + C.

A slice of the rows is walked in tiles small enough for the second-level cache: a tile is transformed into scratch,
multiplied, and what comes out is summed for its batch norm before it leaves the cache. Slices follow from shapes
alone and their partial sums are added in order, so the bits do not depend on the number of threads.
"""

import numpy as np
from numba import get_thread_id, prange

from ..gemm import gemm
from ..kernel import fast, inline
from ..simd import LANES, address
from .rows import clear, finish_gradient_tile, read_gradient_tile, read_tile, sum_tile

TILE_ELEMENTS = 64 * 1024  # input and output elements of one tile
MIN_SLICE = 64  # rows worth a matrix product of their own
MAX_SLICES = 8
MIN_ITEMS = 8  # enough for the threads of small boards


def slices(rows: int) -> int:
    """Number of slices of `rows` = N·H·W: the first axis of every array of partial sums."""
    return max(1, min(rows // MIN_SLICE, MAX_SLICES))


def tile_rows(c: int, k: int) -> int:
    """Rows of a tile for C and K channels."""
    return max(MIN_SLICE, min(256, TILE_ELEMENTS // (c + k) // 16 * 16))


def columns(count: int, parts: int) -> int:
    """Columns of one item where `parts` slices of rows alone would leave threads without work."""
    chunks = max(1, min(MIN_ITEMS // parts, count // 64))
    return -(-(-(-count // chunks)) // LANES) * LANES


_slices = inline(slices)
_tile_rows = inline(tile_rows)
_columns = inline(columns)


def forward_scratch(x: tuple, w: tuple) -> int:
    """Elements of scratch that forward needs per thread, for shapes x (N, H, W, C), w (1, 1, C, K)."""
    return min(tile_rows(*w[2:]), x[0] * x[1] * x[2]) * w[2]


def backward_scratch(x: tuple, w: tuple) -> int:
    """Elements of scratch that backward needs per thread, for shapes x (N, H, W, C), w (1, 1, C, K)."""
    return min(tile_rows(*w[2:]), x[0] * x[1] * x[2]) * (w[2] + w[3])


@fast
def forward(y, x, w, affine, sums, scratch, act):
    """Write y (N, H, W, K) and its sums, from x (N, H, W, C) read through `affine` and `act`, and w (1, 1, C, K).

    affine (2, C): a and b, or (0, 0) to read x as it is (then `act` must be 0). act: 0 none, 1 relu, 2 relu6.
    sums (slices(N·H·W), 2, K) float64: Σy and Σy² per slice, or (0, 0, 0) for none.
    scratch (threads, forward_scratch(…)).
    """
    c, k = w.shape[2], w.shape[3]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    parts, tile, width = _slices(rows), _tile_rows(c, k), _columns(k, _slices(rows))
    chunks = -(-k // width)
    for t in prange(parts * chunks):
        part, first = np.int64(t) // chunks, np.int64(t) % chunks * width
        end = min(first + width, k)
        if sums.size:
            clear(address(sums), 2 * part * k + first, 2 * part * k + end)
            clear(address(sums), (2 * part + 1) * k + first, (2 * part + 1) * k + end)
        thread = get_thread_id()
        stop = rows * (part + 1) // parts
        for m in range(rows * part // parts, stop, tile):
            n = min(tile, stop - m)
            if affine.size:
                read_tile(address(scratch[thread]), address(x), m * c, n, c, address(affine), act)
                gemm(
                    False, False, n, end - first, c, 1.0, scratch, thread * scratch.shape[1], c, w, first, k,
                    0.0, y, m * k + first, k,
                )  # fmt: skip
            else:
                gemm(False, False, n, end - first, c, 1.0, x, m * c, c, w, first, k, 0.0, y, m * k + first, k)
            if sums.size:
                sum_tile(address(y), m * k, n, k, first, end, address(sums), 2 * part * k, k)


@fast
def backward(dx, dw, dz, y, coef, x, affine, w, residual, prev, prev_affine, sums, scratch, act, prev_act):
    """Write dx (N, H, W, C), dw per slice (slices(N·H·W), 1, 1, C, K) and the sums of the norm before.

    The gradient at the raw output is coef[0]·dz + coef[1]·y + coef[2]; without y (0, 0, 0, 0) it is coef[0]·dz,
    without coef (0, 0) it is dz (N, H, W, K). x is read through `affine` and `act` as in forward.
    residual: an array like dx that is added to it, or (0, 0, 0, 0). An empty dx or dw is not written.
    prev, prev_affine, prev_act: the raw output, table and activation of the norm that receives dx, usually x, affine
    and act; dx is zero where that activation is flat. Empty where no norm follows.
    sums (slices(N·H·W), 2, C) float64: Σ dx and Σ dx·prev per slice, or (0, 0, 0).
    scratch (threads, backward_scratch(…)).
    """
    c, k = w.shape[2], w.shape[3]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    parts, tile = _slices(rows), _tile_rows(c, k)
    # with few slices, dx and dw are items of their own, and dw is cut into columns
    apart = parts < 4
    width = _columns(k, 2 * parts) if apart else k
    chunks = 1 + -(-k // width) if apart else 1
    for t in prange(parts * chunks):
        part, chunk = np.int64(t) // chunks, np.int64(t) % chunks
        want_x = dx.size > 0 and (not apart or chunk == 0)
        want_w = dw.size > 0 and (not apart or chunk > 0)
        first = max(0, chunk - 1) * width
        end = min(first + width, k)
        if want_x and sums.size:
            clear(address(sums), 2 * part * c, 2 * (part + 1) * c)
        thread = get_thread_id()
        g_at = thread * scratch.shape[1]
        x_at = g_at + min(tile, rows) * k
        beta = 0.0
        stop = rows * (part + 1) // parts
        for m in range(rows * part // parts, stop, tile):
            n = min(tile, stop - m)
            if coef.size:
                read_gradient_tile(address(scratch[thread]), address(dz), address(y), m * k, n, k, address(coef))
            if want_w:
                if affine.size:
                    read_tile(
                        address(scratch[thread, min(tile, rows) * k :]), address(x), m * c, n, c, address(affine), act
                    )
                if affine.size and coef.size:
                    product_w(dw, part, c, k, n, first, end, beta, scratch, x_at, scratch, g_at)
                elif coef.size:
                    product_w(dw, part, c, k, n, first, end, beta, x, m * c, scratch, g_at)
                elif affine.size:
                    product_w(dw, part, c, k, n, first, end, beta, scratch, x_at, dz, m * k)
                else:
                    product_w(dw, part, c, k, n, first, end, beta, x, m * c, dz, m * k)
                beta = 1.0
            if want_x:
                if coef.size:
                    gemm(False, True, n, c, k, 1.0, scratch, g_at, k, w, 0, k, 0.0, dx, m * c, c)
                else:
                    gemm(False, True, n, c, k, 1.0, dz, m * k, k, w, 0, k, 0.0, dx, m * c, c)
                if residual.size or sums.size or (prev_affine.size and prev_act > 0):
                    finish_gradient_tile(
                        address(dx), address(residual), address(prev), m * c, n, c, 0, c, address(prev_affine),
                        prev_act, address(sums), 2 * part * c,
                    )  # fmt: skip


@inline
def product_w(dw, part, c, k, n, first, end, beta, x, x_at, g, g_at):
    """Columns first … end−1 of dw of slice `part` ← x̂ᵀ g + beta · dw, for n rows."""
    at = part * c * k + first
    gemm(True, False, c, end - first, n, 1.0, x, x_at, c, g, g_at + first, k, beta, dw, at, k)
