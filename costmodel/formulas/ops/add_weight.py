"""Costs of refimpl.ops.add_weight."""

from ..cost import C, D, H, N, U, V, W, add, load, register, store

elements = N * H * W * C

register(
    "add_weight",
    forward=elements * (2 * load + add + store),
    grad_w=elements * (load + add) + U * V * D * store,
    tangent_w=elements * (load + store),
)
