"""Costs of refimpl.ops.quantized_conv2d: integer products over the (window, tap) pairs inside the map."""

from ..cost import C, G, K, N, P, Q, axis_taps, convert, has, iadd, imac, load, nonzero, register, store
from ..requantize import OF_ARRAYS, SATURATED

product = N * axis_taps(0) * axis_taps(1) * C / G * K * (2 * load + imac + nonzero("x_zero") * iadd)

register(
    "quantized_conv2d",
    forward=product + N * P * Q * K * ((2 + has("b")) * load + OF_ARRAYS + iadd + SATURATED + convert + store),
)
