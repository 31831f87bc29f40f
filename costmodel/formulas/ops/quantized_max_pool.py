"""Costs of refimpl.ops.quantized_max_pool: the first tap of a window is taken as it is, the others are compared."""

from ..cost import B, C, H, N, P, Q, W, add, cmp, load, pool_taps, register, store
from ..requantize import SATURATED
from ..rounding import bit, packed

pairs = N * pool_taps(0) * pool_taps(1) * C

register(
    "quantized_max_pool",
    forward=pairs * (load + cmp) + N * P * Q * C * (SATURATED - cmp + store),
    pack_mask=N * P * Q * C * packed + N * B * store,
    argmax=pairs * (load + cmp) + N * P * Q * C * (store - cmp),
    grad_x=pairs * (2 * load + bit + cmp + add) + N * H * W * C * store,
)
