"""Costs of refimpl.ops.layer_norm."""

from ..cost import C, N, add, div, has, load, mac, mul, register, sqrt, store

elements = N * C

register(
    "layer_norm",
    statistics=elements * (2 * load + 2 * add + mac) + N * (3 * div + add + sqrt + 2 * store),
    forward=elements * (5 * load + add + mul + mac + store),
    projections=elements * (3 * load + 2 * add + mul + mac) + N * (2 * load + mul + 2 * store),
    grad_x=elements * (8 * load + 3 * add + 4 * mul + div + store),
    grad_gamma=elements * (4 * load + add + mul + mac) + C * store,
    grad_beta=elements * (load + add) + C * store,
    tangent_projections=elements * (3 * load + 2 * add + mac) + N * (2 * load + mul + 2 * store),
    tangent_normal=elements * (8 * load + 3 * add + 4 * mul + div + store),
    tangent_affine=elements * (has("tbeta") * load + has("tgamma") * (4 * load + 2 * add + 2 * mul) + store),
)
