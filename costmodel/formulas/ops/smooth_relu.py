"""Costs of refimpl.ops.smooth_relu."""

from ..cost import E, N, add, cmp, exp, load, log, mul, register, store
from ..logistic import logistic

register(
    "smooth_relu",
    forward=N * E * (load + 2 * cmp + 2 * add + exp + log + store),
    grad_x=N * E * (2 * load + logistic + mul + store),
)
