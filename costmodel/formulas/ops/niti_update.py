"""Costs of refimpl.ops.niti_update."""

from ..cost import E, N, cmp, convert, iadd, load, nonzero, register, store
from ..draws import words
from ..shared_exponent import CLIPPED, LENGTH, SHIFTED

register(
    "niti_update",
    shift_of=N * load + (N - 1) * cmp + LENGTH + load + iadd + CLIPPED + store,
    change=E * (3 * load + nonzero("stochastic") * (2 * load + words) + SHIFTED + iadd + CLIPPED + convert + store),
)
