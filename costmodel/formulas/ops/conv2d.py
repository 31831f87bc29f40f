"""Costs of refimpl.ops.conv2d: all three products run over the same (window, tap) pairs inside the map."""

from ..cost import C, G, H, K, N, P, Q, R, S, W, add, axis_taps, has, load, mac, register, store

product = N * axis_taps(0) * axis_taps(1) * C / G * K * (2 * load + mac)

register(
    "conv2d",
    forward=product + N * P * Q * K * (has("b") * load + store),
    grad_x=product + N * H * W * C * store,
    grad_w=product + R * S * C / G * K * store,
    grad_b=N * P * Q * K * (load + add) + K * store,
    tangent_b=N * P * Q * K * (load + store),
)
