"""Costs of refimpl.methods.quantized: a product-accumulate of whole numbers is one `imac`.

abs is counted as a comparison; a conversion to a float, to a whole number or to fewer bits as `convert`.
"""

from ..cost import (
    C,
    E,
    G,
    H,
    K,
    N,
    P,
    Q,
    R,
    S,
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
    store,
)  # fmt: skip
from ..draws import words

larger = load + 2 * cmp
largest = N * (E * (larger + cmp) + store)
scaled = div + cmp + store
rounded = 3 * convert + 3 * cmp + iadd + store  # floor, cut off and fewer bits
at_random = 4 * load + words + div + 2 * convert + add + mul + cmp + iadd + rounded
products = N * axis_taps(0) * axis_taps(1) * C / G * K * (2 * load + imac)
scaled_sum = 2 * load + convert + 2 * mul + store  # a sum of whole numbers times two scales
sample = load + convert + mul + add  # a sample's sum times its scale
weight = load + mul + store  # of a sum of samples times the scale of x

register(
    "quantized",
    most=largest,
    most_dy=largest,
    tensor_scale=N * larger + scaled,
    sample_scales=N * (load + scaled),
    batch_scales=N * (N * larger + scaled),
    nearest=N * E * (2 * load + div + add + rounded),
    stochastic=N * E * at_random,
    stochastic_wide=N * E * at_random,
    forward=products + N * P * Q * K * (scaled_sum + has("b") * (load + add)),
    grad_x=products + N * H * W * C * scaled_sum,
    grad_w=products + C / G * K * (N * axis_taps(0) * S * iadd + R * S * (N * sample + weight)),
)
