"""Costs of refimpl.methods.quantized_norm."""

from ..cost import C, H, N, W, add, cmp, div, load, log, mul, register, sqrt, store

elements = N * H * W * C
span = log + sqrt + 2 * mul  # deviations that M values span

register(
    "quantized_norm",
    ends=elements * (load + 2 * cmp) + C * (load + add + span + div + mul + 4 * store),
    slope=C * (5 * load + 4 * mul + sqrt + span + div + store),
    grad_x=elements * (7 * load + 2 * cmp + 2 * add + 3 * mul + div + store),
)
