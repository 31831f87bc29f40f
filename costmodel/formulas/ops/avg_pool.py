"""Costs of refimpl.ops.avg_pool."""

from ..cost import C, H, N, P, Q, W, add, div, load, pool_taps, register, store

pairs = N * pool_taps(0) * pool_taps(1) * C

register(
    "avg_pool",
    forward=pairs * (load + add) + N * P * Q * C * (div + store),
    grad_x=pairs * (load + div + add) + N * H * W * C * store,
)
