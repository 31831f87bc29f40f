"""Costs of refimpl.ops.block_prune. A bit of the mask costs a shift and an `and`; where it lies is addressing."""

from ..cost import B, C, H, N, W, cmp, load, logic, register, shift, store

elements = N * H * W * C
masked = elements * (2 * load + shift + logic + store)

register(
    "block_prune",
    pack_mask=elements * (load + 2 * cmp) + N * B * store,
    forward=masked,
    grad_x=masked,
)
