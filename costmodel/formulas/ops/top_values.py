"""Costs of refimpl.ops.top_values: a rank compares an element with all of its row, twice each."""

from ..cost import C, K, N, cmp, load, register, store

register(
    "top_values",
    find=N * C * (load + C * (load + 2 * cmp) + store),
    forward=N * K * (load + C * (2 * load + cmp) + store),
    grad_x=N * C * (load + K * (load + cmp) + store),
)
