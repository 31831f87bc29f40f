"""Costs of refimpl.ops.leaky_relu. A bit of the mask costs a shift and an `and`; where it lies is addressing."""

from ..cost import B, E, N, cmp, load, logic, mul, register, shift, store

register(
    "leaky_relu",
    forward=N * E * (load + mul + cmp + store),
    pack_mask=N * E * (load + cmp) + N * B * store,
    grad_x=N * E * (2 * load + mul + shift + logic + store),
)
