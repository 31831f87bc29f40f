"""Costs of own.softplus."""

from costmodel.formulas.cost import E, N, add, cmp, div, exp, load, log, register, store

power = add + exp  # of e, to −v: the minus is an addition

register(
    "softplus",
    forward=N * E * (load + power + 2 * cmp + log + add + store),  # max and abs are comparisons
    grad_x=N * E * (2 * load + power + add + div + store),
)
