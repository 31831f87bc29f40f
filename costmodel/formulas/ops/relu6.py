"""Costs of refimpl.ops.relu6. A bit of the mask costs a shift and an `and`; where it lies is addressing."""

from ..cost import B, E, N, cmp, load, logic, register, shift, store

register(
    "relu6",
    forward=N * E * (load + 2 * cmp + store),
    pack_mask=N * E * (load + 2 * cmp) + N * B * store,
    grad_x=N * E * (2 * load + shift + logic + store),
)
