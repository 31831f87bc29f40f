"""Costs of refimpl.methods.quantized_norm. What no array tells, the factor of the range, is no operation."""

from ..cost import C, H, N, W, add, cmp, div, load, mul, register, sqrt, store

elements = N * H * W * C

register(
    "quantized_norm",
    ends=elements * (load + 2 * cmp) + C * (load + add + div + mul + 4 * store),
    slope=C * (5 * load + 4 * mul + sqrt + div + store),
    grad_x=elements * (7 * load + 2 * cmp + 2 * add + 3 * mul + div + store),
)
