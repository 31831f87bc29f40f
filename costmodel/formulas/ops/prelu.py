"""Costs of refimpl.ops.prelu."""

from ..cost import C, D, H, N, U, V, W, cmp, load, mac, mul, register, store

elements = N * H * W * C

register(
    "prelu",
    forward=elements * (2 * load + mul + cmp + store),
    grad_x=elements * (3 * load + mul + cmp + store),
    grad_w=elements * (2 * load + cmp + mac) + U * V * D * store,
    tangent_w=elements * (2 * load + cmp + mul + store),
)
