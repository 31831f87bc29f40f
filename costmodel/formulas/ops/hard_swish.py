"""Costs of refimpl.ops.hard_swish."""

from ..cost import E, N, cmp, load, mac, mul, register, store

factor = mac + 2 * cmp

register(
    "hard_swish",
    forward=N * E * (load + factor + mul + store),
    grad_x=N * E * (2 * load + factor + mul + store),
)
