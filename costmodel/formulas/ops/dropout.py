"""Costs of refimpl.ops.dropout: a draw, whose upper bits are compared with the rate."""

from ..cost import E, N, cmp, load, mul, register, shift, store
from ..draws import words

draw = words + shift + cmp
element = N * E * (3 * load + mul + draw + store)

register("dropout", forward=element, grad_x=element)
