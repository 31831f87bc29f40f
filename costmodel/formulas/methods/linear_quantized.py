"""Costs of refimpl.methods.linear_quantized: a product-accumulate of whole numbers is one `imac`."""

from ..cost import D, K, M, N, add, convert, has, imac, load, mul, register, store

products = N * M * D * K * (2 * load + imac)
scaled = 2 * load + convert + 2 * mul + store  # a sum of whole numbers times two scales
sample = load + convert + mul + add  # a sample's sum times its scale
weight = load + mul + store  # of a sum of samples times the scale of x

register(
    "linear_quantized",
    forward=products + N * M * K * (scaled + has("b") * (load + add)),
    grad_x=products + N * M * D * scaled,
    grad_w=products + D * K * (N * sample + weight),
)
