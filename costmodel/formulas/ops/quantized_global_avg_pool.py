"""Costs of refimpl.ops.quantized_global_avg_pool."""

from ..cost import C, H, N, W, convert, iadd, load, register, store
from ..requantize import OF_ATTRIBUTES, SATURATED

register(
    "quantized_global_avg_pool",
    forward=N * H * W * C * (load + iadd) + N * C * (2 * iadd + OF_ATTRIBUTES + SATURATED + convert + store),
)
