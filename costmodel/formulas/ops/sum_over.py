"""Costs of refimpl.ops.sum_over."""

from ..cost import C, D, H, N, U, V, W, add, div, load, nonzero, register, store

elements, sums = N * H * W * C, N * U * V * D
divided = nonzero("mean") * div

register(
    "sum_over",
    forward=elements * (load + add) + sums * (divided + store),
    grad_x=elements * (load + divided + store),
)
