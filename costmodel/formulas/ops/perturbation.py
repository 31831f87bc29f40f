"""Costs of refimpl.ops.perturbation. A draw is two times Philox of ten rounds (see the costs of dropout).

Eight bytes are added four at a time.
"""

from refimpl.ops.perturbation import HALVINGS

from ..cost import (
    E,
    J,
    L,
    M,
    add,
    cmp,
    convert,
    div,
    has,
    iadd,
    imul,
    load,
    logic,
    mul,
    nonzero,
    register,
    shift,
    sqrt,
    store,
)

a_round = imul + shift + iadd + 5 * logic
words = shift + 2 * logic + 10 * a_round + logic + 10 * a_round - (imul + shift + 2 * logic)
bell = 5 * logic + 3 * shift + 5 * iadd + mul
sign = logic + imul + iadd
variable = load + words + convert + bell + nonzero("signs") * (sign - bell)
guided = variable + 3 * load + 4 * mul + 3 * add
direction = variable + has("guide") * has("share") * guided
by_magnitude = 2 * load + 2 * cmp
by_chance = 2 * load + words + shift + convert + mul + cmp
takes_part = has("least") * by_magnitude + (1 - has("least")) * has("step") * by_chance
total = J * (2 * load + direction + mul + add) + has("scales") * M * (load + mul) + takes_part

register(
    "perturbation",
    perturb=E * (total + load + add + store),
    estimate=E * (total + store),
    follow=E * (load + variable + guided + store),
    magnitude=E * (load + 2 * cmp + HALVINGS * (load + 2 * cmp)) + HALVINGS * (2 * add + mul) + store,
    squares=M * (E * (load + direction + takes_part + mul + add) + L * store),
    norm_ratio=M * (L * 2 * (load + add) + 2 * sqrt + div + 2 * cmp + store),
)
