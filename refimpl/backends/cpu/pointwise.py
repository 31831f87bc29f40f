"""1×1 convolution on the CPU, reading and writing through batch norms as `refimpl.backends.cpu.depthwise` does.

With rows m = (n, h, w):  y[m,k] = Σ_c x̂[m,c]·w[c,k],  dx[m,c] = Σ_k g[m,k]·w[c,k],  dw[c,k] = Σ_m x̂[m,c]·g[m,k]
where x̂ = act(a·x + b) and g = ∂L/∂y = A·dz + B·y + C.

A slice of the rows is walked in tiles small enough for the second-level cache: a tile is transformed into scratch,
multiplied, and what comes out is summed for its batch norm before it leaves the cache. Slices follow from shapes
alone and their partial sums are added in order, so the bits do not depend on the number of threads.
"""

import numpy as np
from numba import get_thread_id, prange

from ...compiler.executed import NOTHING, Ops, executes, pieces
from ...kernels.kernel import fast, inline
from .product import PANEL, product, product_executes
from .rows import (
    clear,
    finish_gradient_tile,
    finish_gradient_tile_executes,
    lanes,
    read_gradient_executes,
    read_gradient_tile,
    read_row_executes,
    read_tile,
    sum_tile,
    sum_tile_executes,
)
from .simd import LANES, address, given, prefetch

TILE_ELEMENTS = 24 * 1024  # input and output elements of one tile
MIN_SLICE = 64  # rows worth a slice of their own
SMALL = 256  # a map of so few rows is one slice, and its columns are the items
MAX_SLICES = 8
CHUNKS = 4  # items of each product on a small map


def slices(rows: int) -> int:
    """Number of slices of `rows` = N·H·W: the first axis of every array of partial sums."""
    return 1 if rows <= SMALL else min(rows // MIN_SLICE, MAX_SLICES)


def tile_rows(rows: int, c: int, k: int) -> int:
    """Rows of a tile for C and K channels: a slice is cut evenly, so that no tile of a few rows is left over."""
    most = max(MIN_SLICE, min(256, TILE_ELEMENTS // (c + k)))
    longest = rows if rows <= SMALL else rows // min(rows // MIN_SLICE, MAX_SLICES) + 1
    tiles = max(1, (longest + most // 2) // most)
    return min(rows, (longest + 8 * tiles - 1) // (8 * tiles) * 8)


def chunk(count: int, chunks: int) -> int:
    """Columns of one of at most `chunks` items: whole vectors."""
    return max(1, (count + chunks * LANES - 1) // (chunks * LANES)) * LANES


_slices = inline(slices)
_tile_rows = inline(tile_rows)
_chunk = inline(chunk)


def forward_scratch(x: tuple, w: tuple) -> tuple[int, int]:
    """Elements of scratch (per thread, shared) that forward needs, for shapes x (N, H, W, C), w (1, 1, C, K)."""
    rows = x[0] * x[1] * x[2]
    return (PANEL, rows * w[2]) if rows <= SMALL else (PANEL + tile_rows(rows, *w[2:]) * w[2], 0)


def backward_scratch(x: tuple, w: tuple) -> tuple[int, int]:
    """Elements of scratch (per thread, shared) that backward needs, for shapes x (N, H, W, C), w (1, 1, C, K)."""
    rows, (c, k) = x[0] * x[1] * x[2], w[2:]
    if rows <= SMALL:
        return PANEL + rows * chunk(c, CHUNKS), c * k + rows * (c + k)
    return PANEL + tile_rows(rows, c, k) * (2 * c + k), c * k


def tiles_of(x, c: int, k: int) -> list[tuple[int, int]]:
    """(rows, how many, of which the first of their slice) of the tiles of a large map."""
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    parts, tile = slices(rows), tile_rows(rows, c, k)
    cut = [list(pieces(rows * (i + 1) // parts - rows * i // parts, tile)) for i in range(parts)]
    return [(n, times, int(i == 0)) for own in cut for i, (n, times) in enumerate(own)]


def forward_executes(y, x, w, affine, sums, scratch, shared, act) -> Ops:
    """x̂ of whole vectors, the products, the sums for the norm after them."""
    c, k = w.shape[2:]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    total = read_row_executes(affine) * (rows * lanes(c))
    if rows <= SMALL:
        for width, times in pieces(k, chunk(k, 2 * CHUNKS)):
            own = product_executes(rows, width, c, False)
            total += (own + (sum_tile_executes(rows, width) if sums.size else NOTHING)) * times
        return total
    for n, times, _ in tiles_of(x, c, k):
        own = product_executes(n, k, c, False)
        total += (own + (sum_tile_executes(n, k) if sums.size else NOTHING)) * times
    return total


@executes(forward_executes)
@fast
def forward(y, x, w, affine, sums, scratch, shared, act):
    """Write y (N, H, W, K) and its sums, from x (N, H, W, C) read through `affine` and `act`, and w (1, 1, C, K).

    affine (2, C): a and b, or (0, 0) to read x as it is (then `act` must be NONE). act: of `activation`.
    sums (slices(N·H·W), 2, K) float64: Σy and Σy² per slice, or (0, 0, 0) for none.
    scratch (threads, own) and shared (common,): own, common = forward_scratch(…).
    """
    c, k = w.shape[2], w.shape[3]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    parts, tile = _slices(rows), _tile_rows(rows, c, k)
    small = rows <= SMALL
    if small and affine.size:
        for t in prange((rows + LANES - 1) // LANES):
            m = np.int64(t) * LANES
            read_tile(address(shared), m * c, address(x), m * c, min(LANES, rows - m), c, address(affine), act)
    width = _chunk(k, 2 * CHUNKS) if small else k
    chunks = (k + width - 1) // width
    for t in prange(parts * chunks):
        part, first = np.int64(t) // chunks, np.int64(t) % chunks * width
        end = min(first + width, k)
        local = address(scratch[get_thread_id()])
        if sums.size:
            clear(address(sums), 2 * part * k + first, 2 * part * k + end)
            clear(address(sums), (2 * part + 1) * k + first, (2 * part + 1) * k + end)
        if small:
            source = address(shared) if affine.size else address(x)
            product(source, 0, c, 1, address(w), first, k, address(y), first, k, rows, end - first, c, False, local, 0)
            if sums.size:
                sum_tile(address(y), 0, rows, k, first, end, address(sums), 0, k)
        else:
            forward_slice(
                address(y), address(x), address(w), address(affine), address(sums), local, act, part,
                rows * part // parts, rows * (part + 1) // parts, tile, c, k,
            )  # fmt: skip


@inline
def forward_slice(y, x, w, affine, sums, scratch, act, part, start, stop, tile, c, k):
    """Rows start … stop−1 of y (slice `part`), `tile` rows at a time, c and k channels. By address, see `forward`."""
    for m in range(start, stop, tile):
        n = min(tile, stop - m)
        source, at = x, m * c
        if given(affine):
            read_tile(scratch, PANEL, x, m * c, n, c, affine, act)
            source, at = scratch, PANEL
        product(source, at, c, 1, w, 0, k, y, m * k, k, n, k, c, False, scratch, 0)
        if given(sums):
            sum_tile(y, m * k, n, k, 0, k, sums, 2 * part * k, k)


def backward_executes(
    dx, dw, dz, y, coef, x, affine, w, residual, prev, prev_affine, sums, scratch, shared, act, prev_act
) -> Ops:  # fmt: skip
    """What comes in, read through the norms; the products of dw, added up over the tiles of a slice; those of dx."""
    c, k = w.shape[2:]
    rows = dz.shape[0] * dz.shape[1] * dz.shape[2]
    of_dx, of_dw = dx.size > 0, dw.size > 0
    total = read_gradient_executes(y, coef) * (rows * lanes(k))
    total += read_row_executes(affine) * (rows * lanes(c)) * of_dw

    def grad_x(n: int, width: int) -> Ops:
        own = product_executes(n, width, k, False)
        return own + finish_gradient_tile_executes(n, width, residual, prev_affine, prev_act, sums)

    if rows <= SMALL:
        for width, times in pieces(c, chunk(c, CHUNKS)):
            total += grad_x(rows, width) * times * of_dx
        for width, times in pieces(k, chunk(k, CHUNKS)):
            total += product_executes(c, width, rows, False) * times * of_dw
        return total
    for n, times, first in tiles_of(dz, c, k):
        total += grad_x(n, c) * times * of_dx
        total += (product_executes(c, k, n, False) * first + product_executes(c, k, n, True) * (times - first)) * of_dw
    return total


@executes(backward_executes)
@fast
def backward(dx, dw, dz, y, coef, x, affine, w, residual, prev, prev_affine, sums, scratch, shared, act, prev_act):
    """Write dx (N, H, W, C), dw per slice (slices(N·H·W), 1, 1, C, K) and the sums of the norm before.

    The gradient at the raw output is coef[0]·dz + coef[1]·y + coef[2]; without y (0, 0, 0, 0) it is coef[0]·dz,
    without coef (0, 0) it is dz (N, H, W, K). w (1, 1, C, K). x is read through `affine` and `act` as in forward.
    residual: an array like dx that is added to it, or (0, 0, 0, 0). An empty dx or dw is not written; without dw
    nothing is read of x, which may be empty.
    prev, prev_affine, prev_act: the raw output, table and activation of the norm that receives dx, usually x, affine
    and act; dx is zero where that activation is flat. Empty where no norm follows.
    sums (slices(N·H·W), 2, C) float64: Σ dx and Σ dx·prev per slice, or (0, 0, 0).
    scratch (threads, own) and shared (common,): own, common = backward_scratch(…).
    """
    c, k = w.shape[2], w.shape[3]
    rows = dz.shape[0] * dz.shape[1] * dz.shape[2]
    parts, tile = _slices(rows), _tile_rows(rows, c, k)
    small = rows <= SMALL
    g_at, x_at = c * k, c * k + rows * k  # of a small map, in shared, after w transposed
    if dx.size:
        for t in prange((k + LANES - 1) // LANES):
            turn(address(shared), address(w), np.int64(t) * LANES, min(np.int64(t) * LANES + LANES, k), c, k)
    if small:
        for t in prange((rows + LANES - 1) // LANES):
            m = np.int64(t) * LANES
            n = min(LANES, rows - m)
            if coef.size:
                read_gradient_tile(
                    address(shared), g_at + m * k, address(dz), address(y), m * k, n, k, address(coef)
                )  # fmt: skip
            if affine.size and dw.size:
                read_tile(address(shared), x_at + m * c, address(x), m * c, n, c, address(affine), act)
    x_width, w_width = (_chunk(c, CHUNKS), _chunk(k, CHUNKS)) if small else (c, k)
    x_chunks, w_chunks = (c + x_width - 1) // x_width, (k + w_width - 1) // w_width
    for t in prange(x_chunks + w_chunks if small else parts):
        item, thread = np.int64(t), get_thread_id()
        if small:
            g, g_from = (address(shared), g_at) if coef.size else (address(dz), 0)
            read, read_from = (address(shared), x_at) if affine.size else (address(x), 0)
            first = item * x_width if item < x_chunks else (item - x_chunks) * w_width
            if item < x_chunks and dx.size:
                grad_x_tile(
                    address(dx), g, g_from, address(shared), address(residual), address(prev), address(prev_affine),
                    address(sums), address(scratch[thread]), PANEL, prev_act, 0, 0, rows, c, k, first,
                    min(first + x_width, c), True,
                )  # fmt: skip
            if item >= x_chunks and dw.size:
                width = min(w_width, k - first)
                product(
                    read, read_from, 1, c, g, g_from + first, k, address(dw), first, k, c, width, rows, False,
                    address(scratch[thread]), 0,
                )  # fmt: skip
        else:
            backward_slice(
                address(dx), address(dw), address(dz), address(y), address(coef), address(x), address(affine),
                address(residual), address(prev), address(prev_affine), address(sums), address(scratch[thread]),
                address(shared), act, prev_act, item, rows * item // parts, rows * (item + 1) // parts, tile, c, k,
            )  # fmt: skip


@inline
def turn(turned, w, first, end, c, k):
    """Rows first … end−1 of w transposed."""
    for i in range(c):
        prefetch(w, (i + LANES) * k + first)
        for j in range(first, end):
            turned[j * c + i] = w[i * k + j]


@inline
def grad_x_tile(
    dx, g, g_from, turned, residual, prev, prev_affine, sums, scratch, at, prev_act, part, m, n, c, k, first, end, fresh
):  # fmt: skip
    """Rows m … m+n−1 and channels first … end−1 of dx; scratch[at …] holds them meanwhile.

    g[g_from …]: the gradient at the raw output, of k channels; turned: w transposed. residual, prev, prev_affine,
    prev_act: as in `backward`. sums of slice `part`; fresh: they begin at 0.
    """
    width, sums_at = end - first, 2 * part * c
    if given(sums) and fresh:
        clear(sums, sums_at + first, sums_at + end)
        clear(sums, sums_at + c + first, sums_at + c + end)
    product(g, g_from, k, 1, turned, first, c, scratch, at, width, n, width, k, False, scratch, 0)
    finish_gradient_tile(
        dx, scratch, at, residual, prev, m * c, n, c, first, end, prev_affine, prev_act, sums, sums_at
    )  # fmt: skip


@inline
def backward_slice(
    dx, dw, dz, y, coef, x, affine, residual, prev, prev_affine, sums, scratch, turned, act, prev_act, part, start,
    stop, tile, c, k,
):  # fmt: skip
    """Rows start … stop−1 of dx and their share of dw, slice `part`, `tile` rows at a time, for c and k channels.

    turned: w transposed; the others as in `backward`. All arrays are addresses.
    """
    x_at, out_at = PANEL + tile * k, PANEL + tile * (k + c)
    for m in range(start, stop, tile):
        n = min(tile, stop - m)
        g, g_from, read, read_from = dz, m * k, x, m * c
        if given(coef):
            read_gradient_tile(scratch, PANEL, dz, y, m * k, n, k, coef)
            g, g_from = scratch, PANEL
        if given(dw):
            if given(affine):
                read_tile(scratch, x_at, x, m * c, n, c, affine, act)
                read, read_from = scratch, x_at
            product(read, read_from, 1, c, g, g_from, k, dw, part * c * k, k, c, k, n, m > start, scratch, 0)
        if given(dx):
            grad_x_tile(
                dx, g, g_from, turned, residual, prev, prev_affine, sums, scratch, out_at, prev_act, part, m, n, c, k,
                0, c, m == start,
            )  # fmt: skip
