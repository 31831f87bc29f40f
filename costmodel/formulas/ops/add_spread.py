"""Costs of refimpl.ops.add_spread."""

from ..cost import C, D, H, N, U, V, W, add, load, register, store

elements = N * H * W * C

register(
    "add_spread",
    forward=elements * (2 * load + add + store),
    grad_s=elements * (load + add) + N * U * V * D * store,
    tangent_s=elements * (load + store),
)
