"""Costs of refimpl.ops.niti_conv2d: a product-accumulate of whole numbers is one `imac`."""

from ..cost import C, G, H, K, N, P, Q, R, S, W, axis_taps, convert, has, iadd, imac, load, register, store
from ..shared_exponent import ALIGNED

products = N * axis_taps(0) * axis_taps(1) * C / G * K * (2 * load + imac)

register(
    "niti_conv2d",
    accumulate=products + N * P * Q * K * (has("b") * (2 * load + ALIGNED + iadd + convert) + store),
    grad_x=products + N * H * W * C * store,
    grad_w=products + R * S * C / G * K * store,
    grad_b=K * (N * P * Q * (load + iadd) + store),
)
