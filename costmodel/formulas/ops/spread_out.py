"""Costs of refimpl.ops.spread_out."""

from ..cost import C, D, H, N, U, V, W, add, load, register, store

whole = N * H * W * C

register("spread_out", forward=whole * (load + store), grad_x=whole * (load + add) + N * U * V * D * store)
