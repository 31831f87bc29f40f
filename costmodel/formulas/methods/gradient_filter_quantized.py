"""Costs of refimpl.methods.gradient_filter_quantized."""

from ..cost import C, G, K, N, R, S, U, V, iadd, imac, load, register
from .gradient_filter import grid_taps
from .quantized import sample, scaled_sum, weight

product = C / G * K * (2 * load + imac)  # one patch, or one patch and tap

register(
    "gradient_filter_quantized",
    patch_grad=N * U * V * (product + C * scaled_sum),
    patch_grad_dilated=N * (grid_taps(U, R, 0) * grid_taps(V, S, 1) * product + U * V * C * scaled_sum),
    patch_grad_w=N * U * V * product + C / G * K * (N * (U * iadd + sample) + weight),
)
