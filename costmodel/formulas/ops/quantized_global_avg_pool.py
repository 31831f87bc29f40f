"""Costs of refimpl.ops.quantized_global_avg_pool."""

from ..cost import B, C, H, N, W, iadd, load, mul, register, store
from ..requantize import OF_ATTRIBUTES, SATURATED
from ..rounding import bit, packed

register(
    "quantized_global_avg_pool",
    forward=N * H * W * C * (load + iadd) + N * C * (2 * iadd + OF_ATTRIBUTES + SATURATED + store),
    pack_mask=N * C * packed + N * B * store,
    grad_x=N * H * W * C * (load + mul + bit + store),
)
