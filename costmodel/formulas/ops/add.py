"""Costs of refimpl.ops.add."""

from ..cost import E, N, add, load, register, store

register("add", forward=N * E * (2 * load + add + store))
