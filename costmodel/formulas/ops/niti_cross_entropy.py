"""Costs of refimpl.ops.niti_cross_entropy."""

from ..cost import (
    K,
    N,
    add,
    cmp,
    convert,
    div,
    exp,
    iadd,
    idiv,
    imul,
    load,
    log,
    logic,
    mul,
    register,
    shift,
    store,
)  # fmt: skip
from ..shared_exponent import CLIPPED

power = 2 * (iadd + CLIPPED) + imul + 2 * shift + logic + iadd + 2 * shift + shift + CLIPPED
unit = load + iadd + 2 * (CLIPPED + shift + convert) + load + div  # the exponent as a float
largest = load + K * (load + cmp)

register(
    "niti_cross_entropy",
    totals=N * (largest + K * (2 * load + iadd + power + iadd) + 2 * store),
    wide_errors=N * K * (5 * load + iadd + power + shift + idiv + iadd + convert + store),
    sample_losses=N
    * (unit + largest + K * (load + iadd + convert + mul + exp + add) + 2 * load + log + iadd + convert + mul + add)
    + N * store,
    mean_loss=N * (load + add) + div + store,
)
