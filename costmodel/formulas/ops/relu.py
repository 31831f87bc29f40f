"""Costs of refimpl.ops.relu."""

from ..cost import B, E, N, cmp, load, register, store

register(
    "relu",
    forward=N * E * (load + cmp + store),
    pack_mask=N * E * (load + cmp) + N * B * store,
    grad_x=N * E * (2 * load + store),
)
