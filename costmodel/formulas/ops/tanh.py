"""Costs of refimpl.ops.tanh."""

from ..cost import E, N, add, load, mul, register, store, tanh

register(
    "tanh",
    forward=N * E * (load + tanh + store),
    grad_x=N * E * (2 * load + 2 * mul + add + store),
)
