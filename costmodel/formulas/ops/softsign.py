"""Costs of refimpl.ops.softsign."""

from ..cost import E, N, add, cmp, div, load, mul, register, store

register(
    "softsign",
    forward=N * E * (load + cmp + add + div + store),
    grad_x=N * E * (2 * load + cmp + add + mul + div + store),
)
