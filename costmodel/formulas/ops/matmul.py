"""Costs of refimpl.ops.matmul."""

from ..cost import D, G, K, N, P, U, V, load, mac, register, store

register(
    "matmul",
    forward=N * G * P * K * (D * (2 * load + mac) + store),
    grad_a=N * G * P * D * (K * (2 * load + mac) + store),
    grad_b=N * G * U * V * (P * (2 * load + mac) + store),
)
