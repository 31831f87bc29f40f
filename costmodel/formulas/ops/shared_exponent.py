"""Costs of refimpl.ops.shared_exponent."""

from ..cost import E, N, cmp, convert, has, iadd, load, nonzero, register, store
from ..draws import words
from ..shared_exponent import ALIGNED, CLIPPED, LENGTH, SHIFTED

drawn = nonzero("stochastic") * has("step") * has("seed") * (2 * load + words)

register(
    "shared_exponent",
    most=N * (E * (load + 2 * cmp) + store),
    settle=N * load + (N - 1) * cmp + LENGTH + (has("first") + has("second")) * (load + iadd) + 2 * store,
    narrow=N * E * (2 * load + drawn + SHIFTED + CLIPPED + convert + store),
    common=2 * load + iadd + 2 * cmp + store,
    align=N * E * (2 * load + 4 * load + 2 * ALIGNED + iadd + convert + store),
)
