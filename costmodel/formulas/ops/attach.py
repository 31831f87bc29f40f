"""Costs of refimpl.ops.attach: every element is copied, and a sum over the batch for that of w."""

from ..cost import C, K, N, P, Q, R, add, load, register, store

register(
    "attach",
    forward=N * P * Q * K * (load + store),
    grad_x=N * P * Q * C * (load + store),
    grad_w=P * Q * R * (N * (load + add) + store),
    tangent_x=N * P * Q * (C * load + K * store),
    tangent_w=N * P * Q * (R * load + K * store),
)
