"""Costs of refimpl.ops.error_function."""

from ..cost import E, N, add, erf, exp, load, mul, register, store

register(
    "error_function", forward=N * E * (load + erf + store), grad_x=N * E * (2 * load + add + 2 * mul + exp + store)
)
