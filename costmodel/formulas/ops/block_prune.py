"""Costs of refimpl.ops.block_prune."""

from ..cost import B, C, H, N, W, cmp, load, register, store

elements = N * H * W * C

register(
    "block_prune",
    pack_mask=elements * (load + 2 * cmp) + N * B * store,
    forward=elements * (2 * load + store),
    grad_x=elements * (2 * load + store),
)
