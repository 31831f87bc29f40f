"""Costs of refimpl.ops.batch_norm."""

from ..cost import C, H, N, W, add, div, has, load, mac, mul, register, sqrt, store

elements = N * H * W * C
update = C * (3 * load + add + mac + store)

register(
    "batch_norm",
    mean=elements * (load + add) + C * (div + store),
    var=elements * (load + add + mac) + C * (load + 2 * div + 2 * store),
    inv_std=C * (load + add + sqrt + div + store),
    forward=elements * (5 * load + add + mul + mac + store),
    update_mean=update,
    update_var=update,
    grad_x=elements * (8 * load + 3 * add + 4 * mul + div + store),
    grad_gamma=elements * (2 * load + add + mac) + C * (2 * load + mul + store),
    grad_beta=elements * (load + add) + C * store,
    tangent_affine=elements * (has("tbeta") * load + has("tgamma") * (4 * load + 2 * add + 2 * mul) + store),
)
