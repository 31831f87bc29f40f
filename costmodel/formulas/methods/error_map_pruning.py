"""Costs of refimpl.methods.error_map_pruning. The dense products on L channels are those of conv2d with K = L.

abs is counted as a comparison. With groups the kept channels of all groups are L, however they fall.
"""

from ..cost import C, G, H, K, L, N, P, Q, R, S, W, add, axis_taps, cmp, load, mac, mul, register, store

taps = axis_taps(0) * axis_taps(1)

register(
    "error_map_pruning",
    score=K * ((R * S * C / G + N * P * Q) * (load + add + cmp) + 3 * mul + add + store),
    rank=K * (K * (2 * load + cmp) + store),
    keep=L * (K * (load + cmp) + store),
    keep_dy=N * P * Q * L * (2 * load + store),
    keep_w=R * S * C / G * L * (2 * load + store),
    keep_x=N * H * W * L * (2 * load + store),
    spread_w=R * S * C / G * K * (2 * load + store),
    spread_b=K * (2 * load + store),
    spread_x=N * H * W * C * (2 * load + store),
    grad_x=N * taps * C * L * load + N * taps * C / G * L * (2 * load + mac) + N * H * W * C * store,
    grad_w=N * taps * C / G * L * (2 * load + mac) + R * S * C / G * K * (load + cmp + store),
)
