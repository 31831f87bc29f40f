"""Costs of refimpl.ops.relu6."""

from ..cost import B, E, N, cmp, load, register, store

register(
    "relu6",
    forward=N * E * (load + 2 * cmp + store),
    pack_mask=N * E * (load + 2 * cmp) + N * B * store,
    grad_x=N * E * (2 * load + store),
)
