"""Costs of refimpl.ops.staircase: what is not large becomes an integer, and a float again."""

from ..cost import E, N, cmp, convert, load, register, store

register("staircase", forward=N * E * (load + 2 * cmp + 2 * convert + store))
