"""Costs of refimpl.ops.silu."""

from ..cost import E, N, div, load, mac, mul, register, store
from ..logistic import logistic

register(
    "silu",
    forward=N * E * (load + logistic + mul + store),
    grad_x=N * E * (2 * load + logistic + mul + div + mac + mul + store),
)
