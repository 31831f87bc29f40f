"""Costs of refimpl.ops.relu. A bit of the mask costs a shift and an `and`; where it lies is addressing."""

from ..cost import B, E, N, cmp, load, logic, register, shift, store

register(
    "relu",
    forward=N * E * (load + cmp + store),
    pack_mask=N * E * (load + cmp) + N * B * store,
    grad_x=N * E * (2 * load + shift + logic + store),
)
