"""Costs of refimpl.ops.global_avg_pool."""

from ..cost import C, H, N, W, add, div, load, register, store

register(
    "global_avg_pool",
    forward=N * H * W * C * (load + add) + N * C * (div + store),
    grad_x=N * H * W * C * (load + div + store),
)
