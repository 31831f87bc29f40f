"""Costs of refimpl.ops.softmax."""

from ..cost import C, N, add, cmp, div, exp, load, mac, mul, register, store

elements = N * C

register(
    "softmax",
    scales=elements * (2 * load + cmp + 2 * add + exp) + N * (load + 2 * store),
    forward=elements * (3 * load + add + exp + div + store),
    projection=elements * (2 * load + mac) + N * store,
    grad_x=elements * (3 * load + add + mul + store),
)
