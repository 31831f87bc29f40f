"""Costs of refimpl.ops.elu."""

from ..cost import E, N, add, cmp, exp, load, mul, register, store

register(
    "elu",
    forward=N * E * (load + cmp + exp + mul + store),
    grad_x=N * E * (2 * load + add + cmp + mul + store),
)
