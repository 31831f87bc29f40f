"""Costs of refimpl.ops.max_pool: the first tap of a window is taken as it is, every further one is compared twice.

Backward compares the kept place of each maximum with its own.
"""

from ..cost import C, H, N, P, Q, W, add, cmp, load, pool_taps, register, store

pairs = N * pool_taps(0) * pool_taps(1) * C
windows = N * P * Q * C
largest = pairs * (load + 2 * cmp) - windows * 2 * cmp + windows * store

register(
    "max_pool",
    forward=largest,
    argmax=largest,
    grad_x=pairs * (2 * load + cmp + add) + N * H * W * C * store,
    tangent=pairs * (load + cmp) + windows * (load + store),
)
