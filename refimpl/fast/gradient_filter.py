"""Gradient filtering on the CPU: pools that stream over the map, two small products per tile, one write of dx and dw.

The equations are those of `refimpl.methods.gradient_filter`, in the same names and shapes. Each kernel writes to arrays
that the caller gives; `scratch` tells the shapes of those that are only working space. Tiles and slices follow from
these shapes, never from the number of threads, and partial sums are added in index order: the same bits for any number
of threads. An optional array is absent when it is empty.
"""

import numba
import numpy as np
from numba import prange

from ..gemm import gemm
from ..kernel import fast, inline

CENTRE = 0
TILE_PATCHES = 256  # patches in a tile of dx_patch
TILE_CHANNELS = 256  # channels in a tile of dx_patch
DW_BLOCK = 256  # rows and columns of a block of dw_patch
ITEMS = 8  # wanted parts of a product, so that a few threads share them evenly
LEAST_ROWS = 64  # patches that a part of a product has at least: fewer do not pay for packing the operands


def scratch(sizes, threads: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the working arrays of a backward pass: `tiles` for `grad_x`, `dw_partial` for `grad_w`.

    sizes: N U V C K G of the call, N the largest that will be used. All have the float dtype of the call.
    """
    n, u, v, c, k, g = (sizes[letter] for letter in "NUVCKG")
    depth, width = c // g, k // g
    lines = max(1, min(TILE_PATCHES // v, -(-n * u // ITEMS)))
    lines = max(lines, min(n * u, -(-LEAST_ROWS // v)))
    parts = -(-n * u // lines)
    channels = min(c, max(TILE_CHANNELS, 1))
    while parts * -(-c // channels) < ITEMS and channels > LEAST_ROWS:
        channels = -(-channels // 2)
    blocks = 1 if depth == width == 1 else g * -(-depth // DW_BLOCK) * -(-width // DW_BLOCK)
    slices = max(1, min(-(-ITEMS // blocks), n * u * v // LEAST_ROWS))
    return {"tiles": (threads, lines, v, channels), "dw_partial": (slices, depth, k)}


@inline
def padding(size, grid, side, align):
    """Rows or columns before the map in its patch grid; negative where the grid crops the map."""
    return -((size - grid * side) // 2) if align == CENTRE else 0


@inline
def add_patch(total, a, first_row, last_row, first_column, last_column):
    """Total (C,) = sum of a (H, W, C) over some rows and columns."""
    total[:] = 0
    for h in range(first_row, last_row):
        for i in range(first_column, last_column):
            for c in range(total.shape[0]):
                total[c] += a[h, i, c]


@inline
def add_masked_patch(total, a, mask, first_row, last_row, first_column, last_column):
    """As `add_patch`, of the elements whose bit in `mask` (B,) is set."""
    total[:] = 0
    channels = total.shape[0]
    zero = total.dtype.type(0)
    for h in range(first_row, last_row):
        for i in range(first_column, last_column):
            at = (h * a.shape[1] + i) * channels
            if channels % 8 == 0:
                for j in range(channels // 8):
                    bits = mask[at // 8 + j]
                    for b in range(8):
                        total[8 * j + b] += a[h, i, 8 * j + b] if (bits >> b) & 1 else zero
            else:
                for c in range(channels):
                    total[c] += a[h, i, c] if (mask[(at + c) >> 3] >> ((at + c) & 7)) & 1 else zero


@fast
def pool_x(x_sum, x, patch, stride, align):
    """X_sum (N, U, V, C) of x (N, H, W, C)."""
    grid_rows, grid_columns = x_sum.shape[1], x_sum.shape[2]
    rows, columns = patch[0] * stride[0], patch[1] * stride[1]
    top, left = padding(x.shape[1], grid_rows, rows, align), padding(x.shape[2], grid_columns, columns, align)
    for t in prange(x_sum.shape[0] * grid_rows):
        n, u = divmod(np.int64(t), grid_rows)
        first, last = max(u * rows - top, 0), min((u + 1) * rows - top, x.shape[1])
        for v in range(grid_columns):
            begin, end = max(v * columns - left, 0), min((v + 1) * columns - left, x.shape[2])
            add_patch(x_sum[n, u, v], x[n], first, last, begin, end)


@fast
def pool_dy(dy_mean, dy, mask, scale, patch, align):
    """Dy_mean (N, U, V, K) of dy (N, P, Q, K), or of mask·scale·dy: what reaches the convolution through an activation
    and a frozen batch norm.

    mask: uint8 (N, ⌈P·Q·K/8⌉), bit i of byte j is element 8j + i of the sample, or empty; scale: (K,) or empty.
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


@fast
def sum_w(w_sum, w):
    """W_sum (C/G, K) of w (R, S, C/G, K)."""
    for t in prange(w.shape[2]):
        c = np.int64(t)
        w_sum[c] = 0
        for r in range(w.shape[0]):
            for s in range(w.shape[1]):
                for k in range(w.shape[3]):
                    w_sum[c, k] += w[r, s, c, k]


@inline
def spread(dx, tile, n, u, v, first_channel, channels, grid_rows, grid_columns, rows, columns, top, left):
    """Write tile (channels,) to every element of dx in patch (u, v) of sample n; cropped borders beside it become 0."""
    first, last = max(u * rows - top, 0), min((u + 1) * rows - top, dx.shape[1])
    begin, end = max(v * columns - left, 0), min((v + 1) * columns - left, dx.shape[2])
    upper = 0 if u == 0 else first
    lower = dx.shape[1] if u == grid_rows - 1 else last
    outer = 0 if v == 0 else begin
    inner = dx.shape[2] if v == grid_columns - 1 else end
    for h in range(upper, lower):
        for i in range(outer, inner):
            if first <= h < last and begin <= i < end:
                for c in range(channels):
                    dx[n, h, i, first_channel + c] = tile[c]
            else:
                for c in range(channels):
                    dx[n, h, i, first_channel + c] = 0


@fast
def grad_x(dx, tiles, dy_mean, w_sum, patch, stride, align):
    """Dx (N, H, W, C) of dy_mean (N, U, V, K), w_sum (C/G, K), on `tiles` from `scratch`: `patch_grad` and `expand`."""
    grid_rows, grid_columns, outputs = dy_mean.shape[1], dy_mean.shape[2], dy_mean.shape[3]
    rows, columns = patch[0] * stride[0], patch[1] * stride[1]
    top, left = padding(dx.shape[1], grid_rows, rows, align), padding(dx.shape[2], grid_columns, columns, align)
    depth, channels = w_sum.shape[0], dx.shape[3]
    width = outputs * depth // channels
    lines, block = tiles.shape[1], tiles.shape[3]
    blocks = -(-channels // block)
    all_lines = dx.shape[0] * grid_rows  # a line is one row of patches of one sample
    for t in prange(-(-all_lines // lines) * blocks):
        part, column = divmod(np.int64(t), blocks)
        first_line, first_channel = part * lines, column * block
        last_line, last_channel = min(first_line + lines, all_lines), min(first_channel + block, channels)
        tile = tiles[numba.get_thread_id()]
        m = (last_line - first_line) * grid_columns
        at = first_line * grid_columns * outputs
        if depth > 1 or width > 1:
            for g in range(first_channel // depth, (last_channel - 1) // depth + 1):
                low, high = max(first_channel, g * depth), min(last_channel, (g + 1) * depth)
                gemm(
                    False, True, m, high - low, width,
                    1.0, dy_mean, at + g * width, outputs, w_sum, (low - g * depth) * outputs + g * width, outputs,
                    0.0, tile, low - first_channel, block,
                )  # fmt: skip
        for line in range(first_line, last_line):
            n, u = divmod(line, grid_rows)
            for v in range(grid_columns):
                value = tile[line - first_line, v]
                if depth == 1 and width == 1:
                    for c in range(last_channel - first_channel):
                        value[c] = dy_mean[n, u, v, first_channel + c] * w_sum[0, first_channel + c]
                spread(
                    dx, value, n, u, v, first_channel, last_channel - first_channel,
                    grid_rows, grid_columns, rows, columns, top, left,
                )  # fmt: skip


@fast
def grad_x_dilated(dx, tiles, dy_mean, w, patch, stride, dilation, align):
    """Dx (N, H, W, C) of dy_mean (N, U, V, K), w (R, S, C/G, K), on `tiles`: `patch_grad_dilated` and `expand`."""
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
                    grid_rows, grid_columns, rows, columns, top, left,
                )  # fmt: skip


@fast
def grad_w(dw, dw_partial, dy_mean, x_sum):
    """Dw (R, S, C/G, K) of dy_mean (N, U, V, K), x_sum (N, U, V, C): `patch_grad_w` and `expand_w`.

    dw_partial (slices, C/G, K) from `scratch` holds the sum over each slice of the patches.
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
                for c in range(channels):
                    total[c] += x_rows[row, c] * dy_rows[row, c]
    else:
        down, across = -(-depth // DW_BLOCK), -(-width // DW_BLOCK)
        for t in prange(slices * groups * down * across):
            rest, b = divmod(np.int64(t), across)
            rest, a = divmod(rest, down)
            i, g = divmod(rest, groups)
            first = min(i * step, patches)
            gemm(
                True, False, min(DW_BLOCK, depth - a * DW_BLOCK), min(DW_BLOCK, width - b * DW_BLOCK),
                min(step, patches - first),
                1.0, x_sum, first * channels + g * depth + a * DW_BLOCK, channels,
                dy_mean, first * outputs + g * width + b * DW_BLOCK, outputs,
                0.0, dw_partial, (i * depth + a * DW_BLOCK) * outputs + g * width + b * DW_BLOCK, outputs,
            )  # fmt: skip
    elements = depth * outputs
    partial, taps = dw_partial.reshape(slices, elements), dw.reshape(dw.shape[0] * dw.shape[1], elements)
    span = 2048
    for t in prange(-(-elements // span)):
        first = np.int64(t) * span
        last = min(first + span, elements)
        for i in range(1, slices):
            for e in range(first, last):
                partial[0, e] += partial[i, e]
        for tap in range(taps.shape[0]):
            for e in range(first, last):
                taps[tap, e] = partial[0, e]
