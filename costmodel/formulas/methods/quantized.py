"""Costs of refimpl.methods.quantized: a product-accumulate of whole numbers is one `imac`.

A draw is dropout's without its shift and its comparison. abs is counted as a comparison, a conversion to a float, to a
whole number or to fewer bits as `convert`.
"""

from ..cost import (
    E,
    C,
    G,
    H,
    K,
    N,
    P,
    Q,
    R,
    S,
    U,
    V,
    W,
    add,
    axis_taps,
    cmp,
    convert,
    div,
    has,
    iadd,
    imac,
    load,
    mul,
    register,
    shift,
    store,
)
from ..ops.dropout import draw
from .gradient_filter import grid_taps

larger = load + 2 * cmp
scaled = div + cmp + store
rounded = 2 * convert + 2 * cmp + store  # floor, cut off and fewer bits
at_random = 4 * load + draw - shift - cmp + div + 2 * convert + add + mul + cmp + iadd + rounded
products = N * axis_taps(0) * axis_taps(1) * C / G * K * (2 * load + imac)
patches = N * U * V * C / G * K * (2 * load + imac)
weight = load + mul + store  # of a sum of samples times the scale of x
sample = load + convert + mul + add  # a sample's sum times its scale

register(
    "quantized",
    most=N * (E * (larger + cmp) + store),
    tensor_scale=N * larger + scaled,
    sample_scales=N * (load + scaled),
    batch_scales=N * (N * larger + scaled),
    nearest=N * E * (2 * load + div + add + rounded),
    stochastic=N * E * at_random,
    stochastic_wide=N * E * at_random,
    forward=products + N * P * Q * K * (2 * load + convert + 2 * mul + has("b") * (load + add) + store),
    grad_x=products + N * H * W * C * (2 * load + convert + 2 * mul + store),
    grad_w=products + C / G * K * (N * axis_taps(0) * S * iadd + R * S * (N * sample + weight)),
    patch_grad=patches + N * U * V * C * (2 * load + convert + 2 * mul + store),
    patch_grad_dilated=N * grid_taps(U, R, 0) * grid_taps(V, S, 1) * C / G * K * (2 * load + imac)
    + N * U * V * C * (2 * load + convert + 2 * mul + store),
    patch_grad_w=patches + C / G * K * (N * (U * iadd + sample) + weight),
)
