"""Kernels of filtered gradients: patch means of dy through what it passes, and products that are spread over patches.

dy is read once and dx is written once; of what lies between only the patch means are stored.
"""

from ...compiler.executed import ADD, MUL, NOTHING, Ops, executes
from ...kernels.cuda import jit
from ...kernels.cuda import late as cuda
from ...kernels.kernel import Kernel
from ...methods.gradient_filter import CENTRE, clip
from .tile import ALIGNED, Tile, Tiled, adder, handing_over, tile_of, up


def pool_dy_through(t, dy_mean, dy, mask, scale, patch=(2, 2), align=0):
    """Mean of dy, (N, P, Q, K), over each patch, (N, U, V, K), where mask, (N, B), has a bit, times scale, (K,).

    mask and scale are empty where there are none. For N·U·V·K items.
    """
    rest, k = divmod(t, dy_mean.shape[3])
    rest, v = divmod(rest, dy_mean.shape[2])
    n, u = divmod(rest, dy_mean.shape[1])
    top = -((dy.shape[1] - dy_mean.shape[1] * patch[0]) // 2) if align == CENTRE else 0
    left = -((dy.shape[2] - dy_mean.shape[2] * patch[1]) // 2) if align == CENTRE else 0
    total = dy_mean.dtype.type(0)
    real = 0
    for p in range(clip(u * patch[0] - top, dy.shape[1]), clip((u + 1) * patch[0] - top, dy.shape[1])):
        for q in range(clip(v * patch[1] - left, dy.shape[2]), clip((v + 1) * patch[1] - left, dy.shape[2])):
            real += 1
            e = (p * dy.shape[2] + q) * dy.shape[3] + k
            if mask.shape[0] == 0 or (mask[n, e >> 3] >> (e & 7)) & 1:
                total += dy[n, p, q, k]
    if scale.shape[0]:
        total *= scale[k]
    dy_mean[n, u, v, k] = total / dy_mean.dtype.type(real)


def spread_grad_x(tile: Tile, dtype):
    """dx, (N·H·W, C): for each patch Σ_k dy_mean · w_sum, arXiv 2301.00330 eq. (3), written to all its pixels.

    dy_mean: (patches, K); w_sum: (C/G, K); a tile of patches and channels of a group a block. sizes: H, W, U, V and G;
    window: rows and columns of a patch of x, and how many of the first one's lie above and to the left of the map.
    Every pixel must lie in a patch.
    """
    rows, columns, depth, each_row, each_column = tile
    threads, result_shape, each = tile.threads, (rows, columns), (each_row, each_column)
    loads, more, lanes = rows * depth // threads, columns * depth // threads, threads // depth
    own_shape, other_shape, line = tile.own, tile.other, threads // columns
    zero, add, hand_over = dtype(0), adder(tile), handing_over(tile)

    @jit
    def kernel(dx, dy_mean, w_sum, sizes, window):
        height, width, patches_down, patches_across, groups = sizes
        side_h, side_w, above, left = window
        own = cuda.shared.array(own_shape, dtype, ALIGNED)  # each on a line: the simulator knows them by it
        other = cuda.shared.array(other_shape, dtype, ALIGNED)
        result = cuda.shared.array(result_shape, dtype, ALIGNED)
        total = cuda.local.array(each, dtype)
        t = cuda.threadIdx.x
        top, side, group = cuda.blockIdx.x * rows, cuda.blockIdx.y * columns, cuda.blockIdx.z
        channels, outputs = w_sum.shape[0], w_sum.shape[1] // groups
        for i in range(each_row):
            for j in range(each_column):
                total[i, j] = zero
        for start in range(0, outputs, depth):
            there, k = start + t % depth < outputs, group * outputs + start + t % depth
            for i in range(loads):
                row, value = top + t // depth + lanes * i, zero
                if there and row < dy_mean.shape[0]:
                    value = dy_mean[row, k]
                own[t % depth, t // depth + lanes * i] = value
            for i in range(more):
                c, value = side + t // depth + lanes * i, zero
                if there and c < channels:
                    value = w_sum[c, k]
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
                if top + i < dy_mean.shape[0]:
                    rest, v = divmod(top + i, patches_across)
                    n, u = divmod(rest, patches_down)
                    for h in range(clip(u * side_h - above, height), clip((u + 1) * side_h - above, height)):
                        for q in range(clip(v * side_w - left, width), clip((v + 1) * side_w - left, width)):
                            dx[(n * height + h) * width + q, group * channels + c] = result[i, t % columns]

    return kernel


def add_slices_to_taps(t, dw, partial):
    """Gradient of w, (taps, E), arXiv 2301.00330 eq. (5): the sum of partial, (slices, E), at every tap.

    For E items.
    """
    total = partial[0, t]
    for s in range(1, partial.shape[0]):
        total += partial[s, t]
    for tap in range(dw.shape[0]):
        dw[tap, t] = total


def _pool_executes(items, dy_mean, dy, mask, scale, patch, align) -> Ops:
    scaled = MUL * dy_mean.size if scale.shape[0] else NOTHING
    return ADD * dy.size + MUL * dy_mean.size + scaled


def _grad_x_result(dx, dy_mean, w_sum, sizes, window) -> tuple[int, int, int, int]:
    return dy_mean.shape[0], w_sum.shape[0], w_sum.shape[1] // sizes[4], sizes[4]


def _grad_x_executes(dx, dy_mean, w_sum, sizes, window) -> Ops:
    rows, columns, terms, groups = _grad_x_result(dx, dy_mean, w_sum, sizes, window)
    tile = tile_of(rows, columns, terms, dx.dtype)
    return tile.macs(rows, columns, up(terms, tile.depth) * tile.depth) * groups


def _taps_executes(items, dw, partial) -> Ops:
    return ADD * (partial.size - partial.shape[1])


POOL = executes(_pool_executes)(Kernel(pool_dy_through).gpu)
GRAD_X = executes(_grad_x_executes)(Tiled(spread_grad_x, _grad_x_result))
TO_TAPS = executes(_taps_executes)(Kernel(add_slices_to_taps).gpu)
