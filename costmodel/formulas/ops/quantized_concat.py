"""Costs of refimpl.ops.quantized_concat: each call requantizes the channels of one input."""

from ..cost import A, N, convert, iadd, load, register, store
from ..requantize import OF_ARRAYS, SATURATED

register("quantized_concat", forward=N * A * (4 * load + 2 * iadd + OF_ARRAYS + SATURATED + convert + store))
