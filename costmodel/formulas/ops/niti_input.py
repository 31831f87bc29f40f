"""Costs of refimpl.ops.niti_input."""

from ..cost import E, N, cmp, convert, div, iadd, load, mul, register, shift, store
from ..shared_exponent import CLIPPED

power = CLIPPED + shift + convert  # of two, as a float

register("niti_input", forward=N * E * (3 * load + iadd + 2 * power + mul + div + 2 * cmp + 2 * convert + store))
