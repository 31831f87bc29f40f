"""Costs of refimpl.ops.quantized_concat: each call requantizes the channels of one input."""

from ..cost import A, B, K, N, convert, div, iadd, load, mul, register, shift, store
from ..requantize import OF_ARRAYS, SATURATED
from ..rounding import bit, packed

register(
    "quantized_concat",
    forward=N * A * (4 * load + 2 * iadd + OF_ARRAYS + SATURATED + store),
    pack_mask=N * K * packed + N * B * store,
    grad_x=N * A * (3 * load + iadd + shift + 2 * convert + div + mul + bit + store),
)
