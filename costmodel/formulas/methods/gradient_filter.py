"""Costs of refimpl.methods.gradient_filter: exact, border patches and cropped rows included.

The pools touch each real element once, whatever the patches; `Min` is the map or, where the patches do not reach its
border, their extent.
"""

import sympy as sp

from refimpl.methods.gradient_filter import GradientFilter

from .. import paper
from ..cost import C, G, H, K, N, P, Q, R, S, U, V, W, add, attribute, div, load, mac, register, store, taps


def covered(size, grid, axis):
    """Rows (axis 0) or columns (axis 1) of x that lie in a patch."""
    return sp.Min(size, grid * attribute(f"patch_{axis}") * attribute(f"stride_{axis}"))


def grid_taps(grid, window, axis):
    """(patch, tap) pairs of the dilated branch that fall inside the patch grid."""
    dilation, patch = attribute(f"dilation_{axis}"), attribute(f"patch_{axis}")
    step = sp.Piecewise((0, sp.Eq(dilation, 1)), (sp.floor(dilation / patch), True))
    return taps(grid, window, grid, 1, step, sp.floor(step * (window - 1) / 2), 0)


map_in_patches = covered(H, U, 0) * covered(W, V, 1)
product = C / G * K * (2 * load + mac)  # one patch, or one patch and tap

register(
    "gradient_filter",
    pool_x=N * C * (map_in_patches * (load + add) + U * V * store),
    pool_dy=N * K * (P * Q * (load + add) + U * V * (div + store)),
    sum_w=C / G * K * (R * S * (load + add) + store),
    patch_grad=N * U * V * (product + C * store),
    patch_grad_dilated=N * (grid_taps(U, R, 0) * grid_taps(V, S, 1) * product + U * V * C * store),
    expand=N * C * (map_in_patches * load + H * W * store),
    patch_grad_w=N * U * V * product + C / G * K * store,
    expand_w=R * S * C / G * K * (load + store),
)


@paper.counts(GradientFilter)
def in_the_paper(rule, sizes, attrs):
    """The formulas of `paper` for a filtered convolution, that of dx apart, its stored input, and its patches."""
    patches = {"U": -(-sizes["P"] // rule.patch[0]), "V": -(-sizes["Q"] // rule.patch[1])}
    dx = ("patch_grad_dilated",) if rule.dilated(attrs) else ("sum_w", "patch_grad")
    return paper.Counted(("pool_dy", "patch_grad_w"), dx, "saved_patches", patches)
