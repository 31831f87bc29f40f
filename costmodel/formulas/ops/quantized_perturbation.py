"""Costs of refimpl.ops.quantized_perturbation. A draw is two times Philox of ten rounds (see the costs of dropout)."""

from ..cost import E, J, M, add, cmp, convert, div, iadd, idiv, imac, imul, load, logic, nonzero, register, shift, store
from ..requantize import CLIPPED, SATURATED

a_round = imul + shift + iadd + 5 * logic
words = shift + 2 * logic + 10 * a_round + logic + 10 * a_round - (imul + shift + 2 * logic)
bell = 5 * logic + 3 * shift + 5 * iadd
scaled = imul + iadd + shift  # by a multiplier and a shift that are attributes
wide = 2 * imul + 2 * iadd + 3 * shift + logic
normal = bell + scaled + CLIPPED
sign = logic + 2 * imul + iadd
variable = load + words + normal + nonzero("binomial") * (sign - normal)
draws = J * (2 * load + variable + imac)
mean8 = imul + iadd + idiv + CLIPPED
rate = load + imul + iadd + shift

register(
    "quantized_perturbation",
    in_steps=M * (2 * load + div + add + cmp + convert + store),
    perturb=E * (draws + 2 * load + imul + imac + scaled + nonzero("wide") * (wide - scaled) + SATURATED + store),
    step=E * (draws + nonzero("mean8") * mean8 + load + rate + iadd + SATURATED + store),
)
