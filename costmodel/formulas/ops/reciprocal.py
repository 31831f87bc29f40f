"""Costs of refimpl.ops.reciprocal."""

from ..cost import E, N, add, div, load, mul, register, store

register("reciprocal", forward=N * E * (load + div + store), grad_x=N * E * (2 * load + add + mul + div + store))
