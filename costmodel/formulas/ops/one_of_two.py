"""Costs of refimpl.ops.one_of_two."""

from ..cost import E, N, cmp, load, register, store

half = N * E * (2 * load + cmp + store)

register("one_of_two", forward=N * E * (3 * load + cmp + store), grad_a=half, grad_b=half)
