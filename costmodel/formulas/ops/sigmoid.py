"""Costs of refimpl.ops.sigmoid."""

from ..cost import E, N, add, load, mul, register, store
from ..logistic import logistic

register(
    "sigmoid",
    forward=N * E * (load + logistic + store),
    grad_x=N * E * (2 * load + 2 * mul + add + store),
)
