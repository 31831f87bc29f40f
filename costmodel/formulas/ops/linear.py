"""Costs of refimpl.ops.linear."""

from ..cost import D, K, N, add, has, load, mac, register, store

product = N * D * K * (2 * load + mac)

register(
    "linear",
    forward=product + N * K * (has("b") * load + store),
    grad_x=product + N * D * store,
    grad_w=product + D * K * store,
    grad_b=N * K * (load + add) + K * store,
    tangent_b=N * K * (load + store),
)
