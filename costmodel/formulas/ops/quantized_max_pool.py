"""Costs of refimpl.ops.quantized_max_pool: the first tap of a window is taken as it is, the others are compared."""

from ..cost import C, N, P, Q, cmp, load, pool_taps, register, store
from ..requantize import SATURATED

pairs = N * pool_taps(0) * pool_taps(1) * C

register("quantized_max_pool", forward=pairs * (load + cmp) + N * P * Q * C * (SATURATED - cmp + store))
