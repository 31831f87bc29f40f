"""Costs of refimpl.ops.dropout. A draw is two times Philox of ten rounds, and is compared with the rate.

The first round of the second one begins with the number of the element, whose arithmetic is that of an index.
"""

from ..cost import E, N, cmp, iadd, imul, load, logic, mul, register, shift, store

a_round = imul + shift + iadd + 5 * logic
key = shift + 2 * logic + 10 * a_round
draw = key + logic + 10 * a_round - (imul + shift + 2 * logic) + shift + cmp
element = N * E * (3 * load + mul + draw + store)

register("dropout", forward=element, grad_x=element)
