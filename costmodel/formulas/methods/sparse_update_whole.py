"""Costs of refimpl.methods.sparse_update_whole: those of its operator on the chosen channels."""

from ..cost import (
    G,
    H,
    K,
    M,
    N,
    R,
    S,
    W,
    add,
    axis_taps,
    convert,
    has,
    iadd,
    imac,
    load,
    mul,
    nonzero,
    register,
    store,
)
from ..rounding import drawn, stepped

products = N * axis_taps(0) * axis_taps(1) * (2 * load + imac + nonzero("x_zero") * iadd)
of_samples = N * axis_taps(0) * S * iadd + R * S * (load + N * (load + convert + mul + add) + store)

register(
    "sparse_update_whole",
    take_x=N * H * W * M * (2 * load + store),
    grad_w=M * K / G * (products + of_samples),
    update=R * S * M * K / G * (6 * load + has("clip") * (load + mul) + drawn + stepped + convert + store),
)
