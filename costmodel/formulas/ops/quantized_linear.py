"""Costs of refimpl.ops.quantized_linear."""

from ..cost import D, K, N, convert, has, iadd, imac, load, nonzero, register, store
from ..requantize import OF_ARRAYS, SATURATED

product = N * D * K * (2 * load + imac + nonzero("x_zero") * iadd) + N * K * has("b") * load

register(
    "quantized_linear",
    forward=product + N * K * (2 * load + OF_ARRAYS + iadd + SATURATED + convert + store),
    accumulate=product + N * K * store,
)
