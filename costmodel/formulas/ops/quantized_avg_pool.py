"""Costs of refimpl.ops.quantized_avg_pool."""

from ..cost import B, C, H, N, P, Q, W, add, cmp, div, iadd, idiv, load, nonzero, pool_taps, register, store
from ..requantize import SATURATED
from ..rounding import bit, packed

pairs = N * pool_taps(0) * pool_taps(1) * C
window = nonzero("count_include_pad") * iadd + cmp + iadd + idiv + SATURATED + store

register(
    "quantized_avg_pool",
    forward=pairs * (load + iadd) + N * P * Q * C * window,
    pack_mask=N * P * Q * C * packed + N * B * store,
    grad_x=pairs * (load + div + bit + add) + N * H * W * C * store,
)
