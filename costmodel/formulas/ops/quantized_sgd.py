"""Costs of refimpl.ops.quantized_sgd."""

from ..cost import E, convert, has, load, mul, register, store
from ..rounding import drawn, stepped

register(
    "quantized_sgd",
    update=E * (4 * load + has("clip") * (load + mul) + drawn + stepped + convert + store),
)
