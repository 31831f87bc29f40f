"""Costs of refimpl.ops.quantized_conv2d: integer products over the (window, tap) pairs inside the map."""

from ..cost import (
    B,
    C,
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
    convert,
    div,
    has,
    iadd,
    imac,
    load,
    mul,
    nonzero,
    register,
    shift,
    store,
)
from ..requantize import OF_ARRAYS, SATURATED
from ..rounding import bit, drawn, larger, packed, rounded, scaled

pairs = N * axis_taps(0) * axis_taps(1) * C / G * K
of_x = nonzero("x_zero") * iadd
slope = 2 * load + iadd + shift + 2 * convert + div + store
largest = N * (P * Q * K * (2 * load + mul + bit + larger) + store)
errors = N * P * Q * K * (drawn + 3 * load + mul + bit + rounded + convert + store)
of_sample = load + convert + mul

register(
    "quantized_conv2d",
    forward=pairs * (2 * load + imac + of_x)
    + N * P * Q * K * ((2 + has("b")) * load + OF_ARRAYS + iadd + SATURATED + store),
    pack_mask=N * P * Q * K * packed + N * B * store,
    slopes=K * slope,
    w_slopes=K * (slope + load + div),
    most=largest,
    w_most=largest,
    scales=N * (scaled + store),
    w_scales=N * (scaled + store),
    round_error=errors,
    round_w_error=errors,
    grad_x=pairs * (2 * load + imac) + N * H * W * C * (of_sample + store),
    grad_w=pairs * (2 * load + imac + of_x)
    + C / G * K * (N * axis_taps(0) * S * iadd + R * S * (N * (of_sample + add) + store)),
    grad_b=K * (N * (P * Q * (load + iadd) + of_sample + add) + 2 * load + div + mul + store),
)
