"""Costs of refimpl.ops.mul_spread."""

from ..cost import C, D, H, N, U, V, W, load, mac, mul, register, store

scaled = N * H * W * C * (2 * load + mul + store)

register(
    "mul_spread",
    forward=scaled,
    grad_x=scaled,
    grad_s=N * H * W * C * (2 * load + mac) + N * U * V * D * store,
)
