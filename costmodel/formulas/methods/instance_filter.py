"""Costs of refimpl.methods.instance_filter. The nets' own passes are those of their operators."""

from ..cost import E, K, N, add, cmp, div, exp, load, log, mac, register, store

register(
    "instance_filter",
    select=N * E * (2 * load + store),
    entropy=N * (K * (2 * load + exp + 2 * add + mac) + (K - 1) * cmp + log + div + add + store),
)
