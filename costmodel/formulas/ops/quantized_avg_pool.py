"""Costs of refimpl.ops.quantized_avg_pool."""

from ..cost import C, N, P, Q, cmp, convert, iadd, idiv, load, nonzero, pool_taps, register, store
from ..requantize import SATURATED

pairs = N * pool_taps(0) * pool_taps(1) * C
window = nonzero("count_include_pad") * iadd + cmp + iadd + idiv + SATURATED + convert + store

register("quantized_avg_pool", forward=pairs * (load + iadd) + N * P * Q * C * window)
