"""Costs of refimpl.ops.niti_linear: a product-accumulate of whole numbers is one `imac`."""

from ..cost import D, K, N, convert, has, iadd, imac, load, register, store
from ..shared_exponent import ALIGNED

products = N * D * K * (2 * load + imac)

register(
    "niti_linear",
    accumulate=products + N * K * (has("b") * (2 * load + ALIGNED + iadd + convert) + store),
    grad_x=products + N * D * store,
    grad_w=products + D * K * store,
    grad_b=K * (N * (load + iadd) + store),
)
