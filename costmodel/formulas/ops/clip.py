"""Costs of refimpl.ops.clip. A bit of the mask costs a shift and an `and`; where it lies is addressing."""

from ..cost import B, E, N, cmp, load, logic, register, shift, store

register(
    "clip",
    forward=N * E * (load + 2 * cmp + store),
    pack_mask=N * E * (load + 2 * cmp) + N * B * store,
    grad_x=N * E * (2 * load + shift + logic + store),
)
