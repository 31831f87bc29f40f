"""Filtered gradients: the patch means of dy are taken through what dy passes, their products are made on tiles.

dy and x are read once and dx is written once, all by kernels of a thread for each result; what is between are maps of
patches. Of a kernel of one tap the products are those of a convolution.
"""

import numpy as np

from ...compiler import grouping
from ...compiler.executed import ADD, MUL, NOTHING, Ops, executes
from ...compiler.ir import AtBatch, Call, Launch
from ...compiler.lower import Lowering
from ...kernels.kernel import Kernel
from ...methods import gradient_filter as gf
from ..common import named, present, through
from .conv_rules import EVERY, of_input, of_weights, pixels

PLAIN = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}


def pool_dy_through(t, dy_mean, dy, mask, scale, patch=(2, 2), align=0):
    """Mean of dy, (N, P, Q, K), over each patch, (N, U, V, K), where mask, (N, B), has a bit, times scale, (K,).

    mask and scale are empty where there are none. For N·U·V·K items.
    """
    rest, k = divmod(t, dy_mean.shape[3])
    rest, v = divmod(rest, dy_mean.shape[2])
    n, u = divmod(rest, dy_mean.shape[1])
    top = -((dy.shape[1] - dy_mean.shape[1] * patch[0]) // 2) if align == gf.CENTRE else 0
    left = -((dy.shape[2] - dy_mean.shape[2] * patch[1]) // 2) if align == gf.CENTRE else 0
    total = dy_mean.dtype.type(0)
    real = 0
    for p in range(gf.clip(u * patch[0] - top, dy.shape[1]), gf.clip((u + 1) * patch[0] - top, dy.shape[1])):
        for q in range(gf.clip(v * patch[1] - left, dy.shape[2]), gf.clip((v + 1) * patch[1] - left, dy.shape[2])):
            real += 1
            e = (p * dy.shape[2] + q) * dy.shape[3] + k
            if mask.shape[0] == 0 or (mask[n, e >> 3] >> (e & 7)) & 1:
                total += dy[n, p, q, k]
    if scale.shape[0]:
        total *= scale[k]
    dy_mean[n, u, v, k] = total / dy_mean.dtype.type(real)


def _pool_executes(items, dy_mean, dy, mask, scale, patch, align) -> Ops:
    scaled = MUL * dy_mean.size if scale.shape[0] else NOTHING
    return ADD * dy.size + MUL * dy_mean.size + scaled


POOL = executes(_pool_executes)(Kernel(pool_dy_through).gpu)


def pool_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The patch means of dy, through a rectifier's mask and a frozen norm: neither of their gradients is stored."""
    arrival = grouping.arrival(lowering, call, gf.pool_dy)
    if len(arrival.readers) != 1 or not arrival.passed:
        return None
    pool, mean = arrival.readers[0], arrival.readers[0].arrays["dy_mean"]
    dy, (mask, scale) = arrival.dy.reshape(pool.arrays["dy"].shape), through(arrival)
    items = AtBatch(lambda n: n * mean.batched * int(np.prod(mean.shape[1:])))
    args = (items, mean, dy, mask, scale, pool.attrs["patch"], pool.attrs["align"])
    covers = (*arrival.passed, pool)
    return [Launch(named(covers), POOL, args, present(dy, mask, scale), (mean,), covers)]


def on_patches(call: Call) -> dict:
    """The sizes of a product on patches as those of a convolution of one tap."""
    z = call.sizes
    return {**z, "H": z["U"], "W": z["V"], "P": z["U"], "Q": z["V"], "R": 1, "S": 1}


def product_x(lowering: Lowering, call: Call) -> list[Launch]:
    """The gradient of each patch of x."""
    a, dtype = call.arrays, call.arrays["dx_patch"].dtype
    dy = pixels(a["dy_mean"]), np.empty((0, 0), np.uint8), np.empty(0, dtype), EVERY
    w = a["w_sum"].reshape((1, 1, *a["w_sum"].shape))
    return [of_input((call,), a["dx_patch"], dy, w, on_patches(call), PLAIN)]


def product_w(lowering: Lowering, call: Call) -> list[Launch]:
    """The one gradient of each window of weights."""
    a, dtype = call.arrays, call.arrays["dw_patch"].dtype
    dy = pixels(a["dy_mean"]), np.empty((0, 0), np.uint8), np.empty(0, dtype), EVERY
    dw = a["dw_patch"].reshape((1, 1, *a["dw_patch"].shape))
    return of_weights(lowering, (call,), call, dw, dy, a["x_sum"], on_patches(call), PLAIN)


RULES = {  # rule → the passes of the calls that it begins at
    pool_gradient: (gf.pool_dy, *grouping.PASSED),
    product_x: (gf.patch_grad,),
    product_w: (gf.patch_grad_w,),
}
