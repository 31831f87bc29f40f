"""Costs of refimpl.ops.niti_avg_pool."""

from ..cost import C, H, N, P, Q, W, iadd, imul, load, pool_taps, register, store

pairs = N * pool_taps(0) * pool_taps(1) * C

register(
    "niti_avg_pool",
    accumulate=pairs * (load + iadd) + N * P * Q * C * (imul + store),
    grad_x=pairs * (load + iadd) + N * H * W * C * (imul + store),
)
