"""Costs of refimpl.ops.by_sign: three comparisons tell the sign."""

from ..cost import E, N, cmp, load, register, store

register("by_sign", forward=N * E * (load + 3 * cmp + store))
