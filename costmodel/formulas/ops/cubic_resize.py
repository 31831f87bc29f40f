"""Costs of refimpl.ops.cubic_resize: shares follow from sizes, and backward adds up what forward read."""

from ..cost import C, H, N, P, Q, W, attribute, load, mac, register, store

read = N * P * Q * C * 4 * attribute("reach_0") * attribute("reach_1")

register(
    "cubic_resize",
    forward=read * (load + mac) + N * P * Q * C * store,
    grad_x=read * (load + mac) + N * H * W * C * store,
)
