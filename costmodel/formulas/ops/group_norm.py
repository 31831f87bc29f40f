"""Costs of refimpl.ops.group_norm."""

from ..cost import C, G, H, N, W, add, div, has, load, mac, mul, register, sqrt, store

elements, groups = N * H * W * C, N * G

register(
    "group_norm",
    mean=elements * (load + add) + groups * (div + store),
    inv_std=elements * (load + add + mac) + groups * (load + 2 * div + add + sqrt + store),
    forward=elements * (5 * load + add + mul + mac + store),
    grad_gamma=elements * (4 * load + add + mul + mac) + C * store,
    grad_beta=elements * (load + add) + C * store,
    grad_parts=elements * (3 * load + mul + 2 * add + mac) + groups * (2 * load + mul + 2 * store),
    grad_x=elements * (8 * load + 2 * add + 2 * mul + mac + div + mul + store),
    tangent_parts=elements * (3 * load + 2 * add + mac) + groups * (2 * load + mul + 2 * store),
    tangent_x=elements * (8 * load + 2 * add + mul + mac + div + 2 * mul + store),
    tangent_affine=elements * (has("tbeta") * load + has("tgamma") * (4 * load + 2 * add + 2 * mul) + store),
)
