"""Costs of refimpl.ops.frozen_batch_norm."""

from ..cost import C, H, N, W, add, div, has, load, mac, mul, register, sqrt, store

elements = N * H * W * C

register(
    "frozen_batch_norm",
    scale=C * (2 * load + add + sqrt + div + store),
    shift=C * (3 * load + mac + store),
    forward=elements * (3 * load + mac + store),
    grad_x=elements * (2 * load + mul + store),
    grad_gamma=elements * (2 * load + add + mac) + C * (2 * load + add + sqrt + div + store),
    grad_beta=elements * (load + add) + C * store,
    tangent_scale=C * (has("tbeta") * load + has("tgamma") * (3 * load + sqrt + div + mul + 2 * add) + 2 * store),
)
