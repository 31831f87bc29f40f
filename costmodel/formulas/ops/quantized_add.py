"""Costs of refimpl.ops.quantized_add."""

from ..cost import E, N, convert, iadd, load, register, shift, store
from ..requantize import OF_ATTRIBUTES, SATURATED

branch = load + iadd + shift + OF_ATTRIBUTES

register(
    "quantized_add",
    forward=N * E * (2 * branch + iadd + OF_ATTRIBUTES + iadd + SATURATED + convert + store),
)
