"""Costs of refimpl.ops.top_places: a rank compares an element with all of its row, twice each."""

from ..cost import C, K, N, cmp, load, register, store

register(
    "top_places",
    find=N * C * (load + C * (load + 2 * cmp) + store),
    forward=N * K * (C * (load + cmp) + store),
)
