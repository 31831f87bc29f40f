"""Gradient filtering on the CPU: pools that stream over the map, two small products per tile, one write of dx and dw.

The equations are those of `refimpl.methods.gradient_filter`, in the same names and shapes. Each kernel writes to arrays
that the caller gives; `scratch` tells the shapes of those that are only working space. Tiles and slices follow from
these shapes, never from the number of threads, and partial sums are added in index order: the same bits for any number
of threads. An optional array is absent when it is empty.
"""

import numba
import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes, pieces
from ...kernels.kernel import fast, inline
from .gemm import gemm
from .product import PANEL, product, product_executes
from .rows import lanes
from .simd import LANES, accumulate, address, keep_bits, load, stream

CENTRE = 0
TILE = 65536  # elements of a tile of dx_patch: it stays in the second-level cache
BLOCK = 256  # longest side of a block of dw_patch
LEAST = 64  # shortest side that a product is cut down to: less does not pay for packing its operands
FAR = 16 << 20  # bytes of a map that no cache keeps until it is read
ITEMS = 8  # wanted parts of a product, so that a few threads share them evenly


def scratch(sizes, threads: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the working arrays of a backward pass, by name: `tiles`, `turned` and `panels` for `grad_x`, `tiles`
    alone for `grad_x_dilated`, `dw_partial` and `panels` for `grad_w`.

    sizes: N U V C K G of the call, N the largest that will be used. All have the float dtype of the call.
    """
    n, u, v, c, k, g = (sizes[letter] for letter in "NUVCKG")
    depth, width = c // g, k // g
    best = None
    for blocks in range(1, max(1, c // LEAST) + 1):
        channels = -(-c // blocks)
        lines = max(1, min(TILE // (channels * v), n * u * blocks // ITEMS))
        parts = -(-n * u // lines)
        # a tile's dy_mean is read once per block of channels, and its part of w_sum copied once per tile
        cost = max(ITEMS - parts * blocks, 0), n * u * v * blocks + c * parts
        if best is None or cost < best[0]:
            best = cost, (threads, lines, v, channels)
    best_w = None
    for slices in range(1, max(1, min(ITEMS, n * u * v // LEAST)) + 1):
        down, across = cuts.py_func(depth, width, g * slices)
        copied = n * u * v * (depth * across + width * down) + (2 * slices * depth * width if slices > 1 else 0)
        cost = max(ITEMS - g * slices * down * across, 0), copied
        if best_w is None or cost < best_w[0]:
            best_w = cost, (slices, depth, k)
    if depth == width == 1:  # no product: the slices alone are shared
        best_w = None, (max(1, min(ITEMS, n * u * v // LEAST)), 1, k)
    return {"tiles": best[1], "turned": (c * width,), "dw_partial": best_w[1], "panels": (threads, PANEL)}


@inline
def cuts(depth, width, times):
    """Into how many blocks of rows and of columns each of `times` products (depth, width) is cut."""
    down, across = -(-depth // BLOCK), -(-width // BLOCK)
    while times * down * across < ITEMS:
        if depth * across >= width * down and depth >= 2 * LEAST * down:
            down *= 2
        elif width >= 2 * LEAST * across:
            across *= 2
        else:
            break
    return down, across


@inline
def padding(size, grid, side, align):
    """Rows or columns before the map in its patch grid; negative where the grid crops the map."""
    return -((size - grid * side) // 2) if align == CENTRE else 0


@inline
def add_patch(total, a, first_row, last_row, first_column, last_column):
    """Output total, (C,): the sum of a, (H, W, C), over some rows and columns."""
    total[:] = 0
    for h in range(first_row, last_row):
        for col in range(first_column, last_column):
            element = a[h, col]
            for c in range(total.shape[0]):
                total[c] += element[c]


@inline
def bits_from(mask, first, count):
    """The `count` ≤ LANES bits of mask (B,) from element `first` of the sample on, as one integer."""
    shift = first & 7
    bits = np.int64(0)
    for j in range((shift + count + 7) >> 3):
        bits |= np.int64(mask[(first >> 3) + j]) << (8 * j)
    return bits >> shift


@inline
def add_masked_patch(total, a, mask, first_row, last_row, first_column, last_column):
    """As `add_patch`, of the elements whose bit in `mask` (B,) is set; another's value does not matter."""
    total[:] = 0
    channels = total.shape[0]
    source, target = address(a), address(total)
    for h in range(first_row, last_row):
        for col in range(first_column, last_column):
            at = (h * a.shape[1] + col) * channels
            for c in range(0, channels, LANES):
                n = min(LANES, channels - c)
                accumulate(target, c, keep_bits(load(source, at + c, n), bits_from(mask, at + c, n)), n)


def pooled(x, grid, patch, align) -> int:
    """Elements of x (N, H, W, C) that lie in a patch of a grid (N, U, V, C): not what it crops."""
    covered = x.shape[0]
    for axis in (0, 1):
        size, patches, side = x.shape[1 + axis], grid.shape[1 + axis], patch[axis]
        before = padding.py_func(size, patches, side, align)
        covered *= min(patches * side - before, size) - max(-before, 0)
    return covered


@executes(
    lambda x_sum, x, patch, stride, align: (
        ADD * (pooled(x, x_sum, (patch[0] * stride[0], patch[1] * stride[1]), align) * x.shape[3])
    )
)
@fast
def pool_x(x_sum, x, patch, stride, align):
    """Sum of x, (N, H, W, C), over each patch: x_sum, (N, U, V, C)."""
    grid_rows, grid_columns = x_sum.shape[1], x_sum.shape[2]
    rows, columns = patch[0] * stride[0], patch[1] * stride[1]
    top, left = padding(x.shape[1], grid_rows, rows, align), padding(x.shape[2], grid_columns, columns, align)
    for t in prange(x_sum.shape[0] * grid_rows):
        n, u = divmod(np.int64(t), grid_rows)
        first, last = max(u * rows - top, 0), min((u + 1) * rows - top, x.shape[1])
        for v in range(grid_columns):
            begin, end = max(v * columns - left, 0), min((v + 1) * columns - left, x.shape[2])
            add_patch(x_sum[n, u, v], x[n], first, last, begin, end)


def pool_dy_executes(dy_mean, dy, mask, scale, patch, align) -> Ops:
    """Sums over patches, in whole vectors where a mask is read, and their mean."""
    width = dy.shape[3]
    sums = pooled(dy, dy_mean, patch, align) * (lanes(width) if mask.shape[0] else width)
    return ADD * sums + MUL * (dy_mean.size * (2 if scale.size else 1))


@executes(pool_dy_executes)
@fast
def pool_dy(dy_mean, dy, mask, scale, patch, align):
    """Mean of dy, (N, P, Q, K), or of mask·scale·dy, over each patch: dy_mean, (N, U, V, K).

    mask·scale·dy is what reaches the convolution through an activation and a frozen batch norm. mask: uint8
    (N, ⌈P·Q·K/8⌉), bit i of byte j is element 8j + i of the sample, or empty; scale: (K,) or empty.
    """
    grid_rows, grid_columns = dy_mean.shape[1], dy_mean.shape[2]
    rows, columns = patch[0], patch[1]
    top, left = padding(dy.shape[1], grid_rows, rows, align), padding(dy.shape[2], grid_columns, columns, align)
    masked, scaled = mask.shape[0] > 0, scale.shape[0] > 0
    for t in prange(dy_mean.shape[0] * grid_rows):
        n, u = divmod(np.int64(t), grid_rows)
        first, last = max(u * rows - top, 0), min((u + 1) * rows - top, dy.shape[1])
        for v in range(grid_columns):
            begin, end = max(v * columns - left, 0), min((v + 1) * columns - left, dy.shape[2])
            mean = dy_mean[n, u, v]
            if masked:
                add_masked_patch(mean, dy[n], mask[n], first, last, begin, end)
            else:
                add_patch(mean, dy[n], first, last, begin, end)
            part = mean.dtype.type(1) / mean.dtype.type((last - first) * (end - begin))
            if scaled:
                for k in range(mean.shape[0]):
                    mean[k] *= part * scale[k]
            else:
                for k in range(mean.shape[0]):
                    mean[k] *= part


@executes(lambda w_sum, w: ADD * w.size)
@fast
def sum_w(w_sum, w):
    """Spatial sum of w, (R, S, C/G, K): w_sum, (C/G, K)."""
    for t in prange(w.shape[2]):
        c = np.int64(t)
        w_sum[c] = 0
        for r in range(w.shape[0]):
            for s in range(w.shape[1]):
                for k in range(w.shape[3]):
                    w_sum[c, k] += w[r, s, c, k]


@inline
def leaves_cache(dx, block):
    """Is dx so large that writing past the caches pays, and aligned for it in blocks of `block` channels?"""
    aligned = block % LANES == 0 and dx.shape[3] % LANES == 0 and dx.ctypes.data % (LANES * dx.itemsize) == 0
    return aligned and dx.size * dx.itemsize > FAR


@inline
def spread(dx, tile, n, u, v, first_channel, channels, grid_rows, grid_columns, rows, columns, top, left, far):
    """Write tile, (channels,), to every element of dx in patch (u, v) of sample n; cropped borders beside it become 0.

    first_channel: of dx, where the tile goes. grid_rows, grid_columns: how many patches; rows, columns: of a patch;
    top, left: before the map (`padding`). far: whole vectors past the caches (see `leaves_cache`).
    """
    first, last = max(u * rows - top, 0), min((u + 1) * rows - top, dx.shape[1])
    begin, end = max(v * columns - left, 0), min((v + 1) * columns - left, dx.shape[2])
    upper = 0 if u == 0 else first
    lower = dx.shape[1] if u == grid_rows - 1 else last
    outer = 0 if v == 0 else begin
    inner = dx.shape[2] if v == grid_columns - 1 else end
    for h in range(upper, lower):
        for col in range(outer, inner):
            element = dx[n, h, col, first_channel : first_channel + channels]
            if not (first <= h < last and begin <= col < end):
                element[:] = 0
            elif far:
                to, source = address(element), address(tile)
                for c in range(0, channels, LANES):
                    stream(to, c, load(source, c, LANES))
            else:
                for c in range(channels):
                    element[c] = tile[c]


def grad_x_executes(dx, tiles, turned, panels, dy_mean, w_sum, patch, stride, align) -> Ops:
    """A product a tile and group, or one multiplication an element where each group has one channel."""
    depth, channels, outputs = w_sum.shape[0], dx.shape[3], dy_mean.shape[3]
    width, lines, block = outputs * depth // channels, tiles.shape[1], tiles.shape[3]
    if depth == width == 1:
        return MUL * dy_mean.size
    total = NOTHING
    for many, i in pieces(dx.shape[0] * dy_mean.shape[1], lines):
        for n, j in blocks_of(channels, block, depth):
            total += product_executes(many * dy_mean.shape[2], n, width, False) * (i * j)
    return total


def blocks_of(channels: int, block: int, depth: int) -> list[tuple[int, int]]:
    """(channels, how many) of the products into which blocks of channels are cut by groups of `depth`."""
    borders = sorted({*range(0, channels, block), *range(0, channels, depth), channels})
    return [(b - a, 1) for a, b in zip(borders, borders[1:], strict=False)]


@executes(grad_x_executes)
@fast
def grad_x(dx, tiles, turned, panels, dy_mean, w_sum, patch, stride, align):
    """Gradient of x, (N, H, W, C), from dy_mean, (N, U, V, K), and w_sum, (C/G, K): `patch_grad` and `expand`.

    tiles, turned and panels: from `scratch`.
    """
    grid_rows, grid_columns, outputs = dy_mean.shape[1], dy_mean.shape[2], dy_mean.shape[3]
    rows, columns = patch[0] * stride[0], patch[1] * stride[1]
    top, left = padding(dx.shape[1], grid_rows, rows, align), padding(dx.shape[2], grid_columns, columns, align)
    depth, channels = w_sum.shape[0], dx.shape[3]
    width = outputs * depth // channels
    for t in prange(-(-outputs // LANES)):  # rows of a group's w_sum transposed: (K/G, C/G), group after group
        first = np.int64(t) * LANES
        for c in range(depth):
            for k in range(first, min(first + LANES, outputs)):
                turned[k * depth + c] = w_sum[c, k]
    lines, block = tiles.shape[1], tiles.shape[3]
    blocks = -(-channels // block)
    far = leaves_cache(dx, block)
    all_lines = dx.shape[0] * grid_rows  # a line is one row of patches of one sample
    for t in prange(-(-all_lines // lines) * blocks):
        part, column = divmod(np.int64(t), blocks)
        first_line, first_channel = part * lines, column * block
        last_line, last_channel = min(first_line + lines, all_lines), min(first_channel + block, channels)
        tile, panel = tiles[numba.get_thread_id()], panels[numba.get_thread_id()]
        m = (last_line - first_line) * grid_columns
        at = first_line * grid_columns * outputs
        if depth > 1 or width > 1:
            for g in range(first_channel // depth, (last_channel - 1) // depth + 1):
                low, high = max(first_channel, g * depth), min(last_channel, (g + 1) * depth)
                product(
                    address(dy_mean), at + g * width, outputs, 1,
                    address(turned), g * width * depth + low - g * depth, depth,
                    address(tile), low - first_channel, block, m, high - low, width, False, address(panel), 0,
                )  # fmt: skip
        for line in range(first_line, last_line):
            n, u = divmod(line, grid_rows)
            for v in range(grid_columns):
                value = tile[line - first_line, v]
                if depth == 1 and width == 1:
                    mean, weight = dy_mean[n, u, v, first_channel:last_channel], w_sum[0, first_channel:last_channel]
                    for c in range(mean.shape[0]):
                        value[c] = mean[c] * weight[c]
                spread(
                    dx, value, n, u, v, first_channel, last_channel - first_channel,
                    grid_rows, grid_columns, rows, columns, top, left, far,
                )  # fmt: skip


def grad_x_dilated_executes(dx, tiles, dy_mean, w, patch, stride, dilation, align) -> Ops:
    """A product of BLAS for each line of patches, tap that falls on the grid, and group."""
    rows, columns = dy_mean.shape[1:3]
    near = []  # along each axis, pairs of a patch and a tap whose patch is there
    for axis, grid in ((0, rows), (1, columns)):
        step = dilation[axis] // patch[axis] if dilation[axis] > 1 else 0
        middle = step * (w.shape[axis] - 1) // 2
        near.append(sum(0 <= u + middle - r * step < grid for u in range(grid) for r in range(w.shape[axis])))
    return MAC * (dx.shape[0] * near[0] * near[1] * w.shape[2] * w.shape[3])


@executes(grad_x_dilated_executes)
@fast
def grad_x_dilated(dx, tiles, dy_mean, w, patch, stride, dilation, align):
    """Gradient of x, (N, H, W, C), from dy_mean, (N, U, V, K), and w, (R, S, C/G, K), on `tiles` from `scratch`.

    It does `patch_grad_dilated` and `expand`.
    """
    grid_rows, grid_columns, outputs = dy_mean.shape[1], dy_mean.shape[2], dy_mean.shape[3]
    rows, columns = patch[0] * stride[0], patch[1] * stride[1]
    top, left = padding(dx.shape[1], grid_rows, rows, align), padding(dx.shape[2], grid_columns, columns, align)
    down = dilation[0] // patch[0] if dilation[0] > 1 else 0
    right = dilation[1] // patch[1] if dilation[1] > 1 else 0
    above, beside = down * (w.shape[0] - 1) // 2, right * (w.shape[1] - 1) // 2
    depth, channels = w.shape[2], dx.shape[3]
    width = outputs * depth // channels
    lines, block = tiles.shape[1], tiles.shape[3]
    blocks = -(-channels // block)
    far = leaves_cache(dx, block)
    all_lines = dx.shape[0] * grid_rows
    for t in prange(-(-all_lines // lines) * blocks):
        part, column = divmod(np.int64(t), blocks)
        first_line, first_channel = part * lines, column * block
        last_line, last_channel = min(first_line + lines, all_lines), min(first_channel + block, channels)
        tile = tiles[numba.get_thread_id()]
        for line in range(first_line, last_line):
            n, u = divmod(line, grid_rows)
            tile[line - first_line] = 0
            for r in range(w.shape[0]):
                i = u + above - r * down
                for s in range(w.shape[1]):
                    shift = beside - s * right
                    first, last = max(0, -shift), min(grid_columns, grid_columns - shift)  # v with 0 ≤ v + shift < V
                    if 0 <= i < grid_rows and first < last:
                        at = ((n * grid_rows + i) * grid_columns + first + shift) * outputs
                        to = ((line - first_line) * grid_columns + first) * block
                        tap = (r * w.shape[1] + s) * depth * outputs
                        for g in range(first_channel // depth, (last_channel - 1) // depth + 1):
                            low, high = max(first_channel, g * depth), min(last_channel, (g + 1) * depth)
                            gemm(
                                False, True, last - first, high - low, width,
                                1.0, dy_mean, at + g * width, outputs,
                                w, tap + (low - g * depth) * outputs + g * width, outputs,
                                1.0, tile, to + low - first_channel, block,
                            )  # fmt: skip
            for v in range(grid_columns):
                spread(
                    dx, tile[line - first_line, v], n, u, v, first_channel, last_channel - first_channel,
                    grid_rows, grid_columns, rows, columns, top, left, far,
                )  # fmt: skip


def grad_w_executes(dw, dw_partial, panels, dy_mean, x_sum) -> Ops:
    """The products of each slice of the patches, and the sum of the slices."""
    slices, depth, outputs = dw_partial.shape
    groups = x_sum.shape[3] // depth
    width, patches = outputs // groups, x_sum.size // x_sum.shape[3]
    total, step = ADD * ((slices - 1) * depth * outputs), -(-patches // slices)
    if depth == width == 1:
        return total + MAC * (patches * outputs)
    down, across = cuts.py_func(depth, width, slices * groups)
    for rows, i in pieces(patches, step):
        for high, j in pieces(depth, -(-depth // down)):
            for wide, k in pieces(width, -(-width // across)):
                total += product_executes(high, wide, rows, False) * (i * j * k * groups)
    return total


@executes(grad_w_executes)
@fast
def grad_w(dw, dw_partial, panels, dy_mean, x_sum):
    """Gradient of w, (R, S, C/G, K), from dy_mean, (N, U, V, K), and x_sum, (N, U, V, C): `patch_grad_w`, `expand_w`.

    dw_partial (slices, C/G, K) and panels from `scratch`; dw_partial holds the sum over each slice of the patches.
    """
    slices, depth, outputs = dw_partial.shape
    channels = x_sum.shape[3]
    groups = channels // depth
    width = outputs // groups
    patches = x_sum.shape[0] * x_sum.shape[1] * x_sum.shape[2]
    step = -(-patches // slices)
    if depth == 1 and width == 1:
        x_rows, dy_rows = x_sum.reshape(patches, channels), dy_mean.reshape(patches, channels)
        for t in prange(slices):
            i = np.int64(t)
            total = dw_partial[i, 0]
            total[:] = 0
            for row in range(i * step, min((i + 1) * step, patches)):
                x_row, dy_row = x_rows[row], dy_rows[row]
                for c in range(channels):
                    total[c] += x_row[c] * dy_row[c]
    else:
        down, across = cuts(depth, width, slices * groups)
        high, wide = -(-depth // down), -(-width // across)
        for t in prange(slices * groups * down * across):
            rest, b = divmod(np.int64(t), across)
            rest, a = divmod(rest, down)
            i, g = divmod(rest, groups)
            first = min(i * step, patches)
            product(
                address(x_sum), first * channels + g * depth + a * high, 1, channels,
                address(dy_mean), first * outputs + g * width + b * wide, outputs,
                address(dw_partial), (i * depth + a * high) * outputs + g * width + b * wide, outputs,
                min(high, depth - a * high), min(wide, width - b * wide), min(step, patches - first), False,
                address(panels[numba.get_thread_id()]), 0,
            )  # fmt: skip
    elements = depth * outputs
    partial, taps = dw_partial.reshape(slices, elements), dw.reshape(dw.shape[0] * dw.shape[1], elements)
    span = 2048
    for t in prange(-(-elements // span)):
        first = np.int64(t) * span
        last = min(first + span, elements)
        total = partial[0, first:last]  # a view, counted from 0: an index that might be negative is not vectorised
        for i in range(1, slices):
            part = partial[i, first:last]
            for e in range(total.shape[0]):
                total[e] += part[e]
        for tap in range(taps.shape[0]):
            copy = taps[tap, first:last]
            for e in range(total.shape[0]):
                copy[e] = total[e]
