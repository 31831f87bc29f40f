"""Costs of refimpl.ops.hard_sigmoid. A bit of the mask costs a shift and an `and`; where it lies is addressing."""

from ..cost import B, E, N, cmp, load, logic, mac, mul, register, shift, store

register(
    "hard_sigmoid",
    forward=N * E * (load + mac + 2 * cmp + store),
    pack_mask=N * E * (load + 2 * cmp) + N * B * store,
    grad_x=N * E * (2 * load + mul + shift + logic + store),
)
