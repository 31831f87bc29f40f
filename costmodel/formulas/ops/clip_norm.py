"""Costs of refimpl.ops.clip_norm."""

from ..cost import E, J, L, add, cmp, div, load, mac, register, sqrt, store

register(
    "clip_norm",
    partial_squares=E * (load + mac) + L * store,
    nothing=L * store,
    factor=J * (load + add) + sqrt + add + div + cmp + 2 * store,
)
