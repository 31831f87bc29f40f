"""Costs of refimpl.ops.absolute_value."""

from ..cost import E, N, add, cmp, load, register, store

register("absolute_value", forward=N * E * (load + cmp + store), grad_x=N * E * (2 * load + 2 * cmp + add + store))
