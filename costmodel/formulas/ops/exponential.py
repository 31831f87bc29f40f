"""Costs of refimpl.ops.exponential."""

from ..cost import E, N, exp, load, mul, register, store

register("exponential", forward=N * E * (load + exp + store), grad_x=N * E * (2 * load + mul + store))
