"""Costs of refimpl.ops.interpolate: the shares of neighbours follow from sizes, and where these lie is addressing.

Backward adds up what forward read: one element or four for each of y.
"""

from ..cost import C, H, N, P, Q, W, add, load, mac, mul, nonzero, register, store

linear = nonzero("smooth")
elements = N * P * Q * C

register(
    "interpolate",
    forward=elements * (load + linear * (3 * load + 6 * mul + 3 * add) + store),
    grad_x=elements * ((1 - linear) * (load + add) + linear * 4 * (load + mac)) + N * H * W * C * store,
)
