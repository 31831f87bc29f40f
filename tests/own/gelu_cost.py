"""Costs of own.gelu."""

from costmodel.formulas.cost import E, N, add, div, exp, load, mul, register, store

one_plus_exp = 4 * mul + add + exp + add

register(
    "gelu",
    forward=N * E * (load + one_plus_exp + div + store),
    grad_x=N * E * (2 * load + one_plus_exp + div + 6 * mul + 3 * add + store),
)
