"""Costs of refimpl.ops.quantized_linear."""

from ..cost import (
    B,
    D,
    K,
    N,
    add,
    convert,
    div,
    has,
    iadd,
    imac,
    imul,
    load,
    mul,
    nonzero,
    register,
    shift,
    store,
)
from ..requantize import OF_ARRAYS, SATURATED
from ..rounding import bit, drawn, larger, packed, rounded, scaled

of_x = nonzero("x_zero") * iadd
product = N * D * K * (2 * load + imac + of_x) + N * K * has("b") * load
of_row = load + convert + mul

register(
    "quantized_linear",
    forward=product + N * K * (2 * load + OF_ARRAYS + iadd + SATURATED + store),
    accumulate=product + N * K * store,
    pack_mask=N * K * packed + N * B * store,
    grad_sums=N * K * (3 * load + iadd + shift + 2 * convert + div + mul + bit + store),
    most=N * (K * (load + larger) + store),
    w_most=N * (K * (2 * load + div + larger) + store),
    scales=N * (scaled + store),
    w_scales=N * (scaled + store),
    round_error=N * K * (drawn + 2 * load + rounded + convert + store),
    round_w_error=N * K * (drawn + 3 * load + div + rounded + convert + store),
    grad_x=N * D * K * (2 * load + imac) + N * D * (of_row + store),
    grad_w=D * K * (N * (2 * load + imul + of_x + of_row + add) + store),
    grad_b=K * (N * (load + of_row + add) + 2 * load + div + mul + store),
)
