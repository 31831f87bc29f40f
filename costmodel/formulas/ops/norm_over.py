"""Costs of refimpl.ops.norm_over."""

from ..cost import C, D, H, N, U, V, W, cmp, div, load, mac, mul, register, sqrt, store

elements, norms = N * H * W * C, N * U * V * D

register(
    "norm_over",
    forward=elements * (2 * load + mac) + norms * (sqrt + store),
    grad_x=elements * (3 * load + mul + div + cmp + store),
    tangent=elements * (2 * load + mac) + norms * (load + div + cmp + store),
)
