"""Costs of own.silu."""

from costmodel.formulas.cost import E, N, add, div, exp, load, mul, register, store

sigmoid = 2 * add + exp + div  # −v is an addition too

register(
    "silu",
    forward=N * E * (load + sigmoid + store),
    grad_x=N * E * (2 * load + sigmoid + 3 * mul + 2 * add + store),
)
