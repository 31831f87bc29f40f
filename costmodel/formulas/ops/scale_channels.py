"""Costs of refimpl.ops.scale_channels."""

from ..cost import C, H, N, W, load, mac, mul, register, store

scaled = N * H * W * C * (2 * load + mul + store)

register(
    "scale_channels",
    forward=scaled,
    grad_x=scaled,
    grad_s=N * H * W * C * (2 * load + mac) + N * C * store,
)
