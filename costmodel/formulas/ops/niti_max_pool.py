"""Costs of refimpl.ops.niti_max_pool: the first tap of a window is taken as it is, every further one is compared.

Backward compares the kept place of each maximum with its own.
"""

from ..cost import C, H, N, P, Q, W, cmp, load, pool_taps, register, store

pairs = N * pool_taps(0) * pool_taps(1) * C
windows = N * P * Q * C
largest = pairs * (load + cmp) - windows * cmp + windows * store

register(
    "niti_max_pool",
    forward=largest,
    argmax=largest,
    grad_x=pairs * (2 * load + cmp) + N * H * W * C * store,
)
