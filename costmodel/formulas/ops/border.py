"""Costs of refimpl.ops.border: elements are copied, those of a border of one value are set."""

from ..cost import C, H, K, N, P, Q, W, add, load, nonzero, register, store

goes_on = nonzero("mode")
inside, whole = H * W * C, P * Q * K

register(
    "border",
    forward=N * ((inside + goes_on * (whole - inside)) * load + whole * store),
    grad_x=N * (inside * (load + store) + goes_on * (whole * (load + add) - inside * load)),
)
