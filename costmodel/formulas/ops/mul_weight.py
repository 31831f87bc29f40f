"""Costs of refimpl.ops.mul_weight."""

from ..cost import C, D, H, N, U, V, W, load, mac, mul, register, store

scaled = N * H * W * C * (2 * load + mul + store)

register(
    "mul_weight",
    forward=scaled,
    grad_x=scaled,
    grad_w=N * H * W * C * (2 * load + mac) + U * V * D * store,
)
