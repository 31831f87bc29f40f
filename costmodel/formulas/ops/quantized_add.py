"""Costs of refimpl.ops.quantized_add."""

from ..cost import B, E, N, iadd, load, mul, register, shift, store
from ..requantize import OF_ATTRIBUTES, SATURATED
from ..rounding import bit, packed

branch = load + iadd + shift + OF_ATTRIBUTES
gradient = load + mul + bit + store

register(
    "quantized_add",
    forward=N * E * (2 * branch + iadd + OF_ATTRIBUTES + iadd + SATURATED + store),
    pack_mask=N * E * packed + N * B * store,
    grad_a=N * E * gradient,
    grad_b=N * E * gradient,
)
