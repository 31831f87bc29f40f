"""1×1 convolution on the CPU, reading and writing through batch norms as `refimpl.fast.depthwise` does.

With rows m = (n, h, w):  y[m,k] = Σ_c x̂[m,c]·w[c,k],  dx[m,c] = Σ_k g[m,k]·w[c,k],  dw[c,k] = Σ_m x̂[m,c]·g[m,k]
where x̂ = act(a·x + b) and g = ∂L/∂y = A·dz + B·y + C.

A slice of the rows is walked in tiles small enough for the second-level cache: a tile is transformed into scratch,
multiplied, and what comes out is summed for its batch norm before it leaves the cache. Slices follow from shapes
alone and their partial sums are added in order, so the bits do not depend on the number of threads.
"""

import numpy as np
from numba import get_thread_id, prange

from ..kernel import fast, inline
from ..simd import LANES, address, given
from .product import product
from .rows import clear, finish_gradient_tile, read_gradient_tile, read_tile, sum_tile

TILE_ELEMENTS = 24 * 1024  # input and output elements of one tile
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
    return ((count + chunks - 1) // chunks + LANES - 1) // LANES * LANES


_slices = inline(slices)
_tile_rows = inline(tile_rows)
_columns = inline(columns)


def forward_scratch(x: tuple, w: tuple) -> int:
    """Elements of scratch that forward needs per thread, for shapes x (N, H, W, C), w (1, 1, C, K)."""
    return min(tile_rows(*w[2:]), x[0] * x[1] * x[2]) * w[2]


def backward_scratch(x: tuple, w: tuple) -> int:
    """Elements of scratch that backward needs per thread, for shapes x (N, H, W, C), w (1, 1, C, K)."""
    return min(tile_rows(*w[2:]), x[0] * x[1] * x[2]) * (2 * w[2] + w[3])


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
    chunks = (k + width - 1) // width
    for t in prange(parts * chunks):
        part, first = np.int64(t) // chunks, np.int64(t) % chunks * width
        forward_item(
            address(y), address(x), address(w), address(affine), address(sums), address(scratch[get_thread_id()]), act,
            part, rows * part // parts, rows * (part + 1) // parts, tile, c, k, first, min(first + width, k),
        )  # fmt: skip


@inline
def forward_item(y, x, w, affine, sums, scratch, act, part, start, stop, tile, c, k, first, end):
    """Rows start … stop−1 and channels first … end−1 of y. All arrays are addresses."""
    if given(sums):
        clear(sums, 2 * part * k + first, 2 * part * k + end)
        clear(sums, (2 * part + 1) * k + first, (2 * part + 1) * k + end)
    for m in range(start, stop, tile):
        n = min(tile, stop - m)
        source, at = x, m * c
        if given(affine):
            read_tile(scratch, 0, x, m * c, n, c, affine, act)
            source, at = scratch, 0
        product(source, at, c, 1, w, first, k, y, m * k + first, k, n, end - first, c, False)
        if given(sums):
            sum_tile(y, m * k, n, k, first, end, sums, 2 * part * k, k)


@fast
def backward(dx, dw, dz, y, coef, x, affine, w, residual, prev, prev_affine, sums, scratch, turned, act, prev_act):
    """Write dx (N, H, W, C), dw per slice (slices(N·H·W), 1, 1, C, K) and the sums of the norm before.

    The gradient at the raw output is coef[0]·dz + coef[1]·y + coef[2]; without y (0, 0, 0, 0) it is coef[0]·dz,
    without coef (0, 0) it is dz (N, H, W, K). x is read through `affine` and `act` as in forward.
    residual: an array like dx that is added to it, or (0, 0, 0, 0). An empty dx or dw is not written.
    prev, prev_affine, prev_act: the raw output, table and activation of the norm that receives dx, usually x, affine
    and act; dx is zero where that activation is flat. Empty where no norm follows.
    sums (slices(N·H·W), 2, C) float64: Σ dx and Σ dx·prev per slice, or (0, 0, 0).
    scratch (threads, backward_scratch(…)). turned (K, C): scratch for w transposed; may be empty where dx is.
    """
    c, k = w.shape[2], w.shape[3]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    parts, tile = _slices(rows), _tile_rows(c, k)
    if dx.size:
        for t in prange(-(-k // LANES)):
            turn(address(turned), address(w), np.int64(t) * LANES, min(np.int64(t) * LANES + LANES, k), c, k)
    # with few slices, dx and dw are items of their own, and both are cut into columns
    apart = parts < 4
    x_width = _columns(c, 2 * parts) if apart else c
    w_width = _columns(k, 2 * parts) if apart else k
    x_chunks = -(-c // x_width)
    chunks = x_chunks + -(-k // w_width) if apart else 1
    for t in prange(parts * chunks):
        part, chunk = np.int64(t) // chunks, np.int64(t) % chunks
        x_first, w_first = chunk * x_width, max(0, chunk - x_chunks) * w_width if apart else 0
        x_end = min(x_first + x_width, c) if chunk < x_chunks and dx.size else x_first
        w_end = min(w_first + w_width, k) if (chunk >= x_chunks or not apart) and dw.size else w_first
        backward_item(
            address(dx), address(dw), address(dz), address(y), address(coef), address(x), address(affine),
            address(residual), address(prev), address(prev_affine), address(sums), address(scratch[get_thread_id()]),
            address(turned), act, prev_act, part, rows * part // parts, rows * (part + 1) // parts, tile,
            min(tile, rows), c, k, (x_first, x_end, w_first, w_end),
        )  # fmt: skip


@inline
def turn(turned, w, first, end, c, k):
    """Rows first … end−1 of w transposed."""
    for i in range(c):
        for j in range(first, end):
            turned[j * c + i] = w[i * k + j]


@inline
def backward_item(
    dx, dw, dz, y, coef, x, affine, residual, prev, prev_affine, sums, scratch, turned, act, prev_act, part, start,
    stop, tile, space, c, k, ranges,
):  # fmt: skip
    """Rows start … stop−1: columns x_first … x_end−1 of dx and w_first … w_end−1 of dw. All arrays are addresses."""
    x_first, x_end, w_first, w_end = ranges
    g_at, x_at, out_at = 0, space * k, space * (k + c)
    at = 2 * part * c
    if given(sums) and x_end > x_first:
        clear(sums, at + x_first, at + x_end)
        clear(sums, at + c + x_first, at + c + x_end)
    for m in range(start, stop, tile):
        n = min(tile, stop - m)
        g, g_from = dz, m * k
        if given(coef):
            read_gradient_tile(scratch, dz, y, m * k, n, k, coef)
            g, g_from = scratch, g_at
        if w_end > w_first:
            source, source_at = x, m * c
            if given(affine):
                read_tile(scratch, x_at, x, m * c, n, c, affine, act)
                source, source_at = scratch, x_at
            to = part * c * k + w_first
            product(source, source_at, 1, c, g, g_from + w_first, k, dw, to, k, c, w_end - w_first, n, m > start)
        if x_end > x_first:
            width = x_end - x_first
            product(g, g_from, k, 1, turned, x_first, c, scratch, out_at, width, n, width, k, False)
            finish_gradient_tile(
                dx, scratch, out_at, residual, prev, m * c, n, c, x_first, x_end, prev_affine, prev_act, sums, at
            )
