"""Costs of refimpl.kernels.shared_exponent, for the formulas of operators."""

from .cost import cmp, iadd, logic, nonzero, shift

LENGTH = 31 * (shift + cmp)
CLIPPED = 2 * cmp
mask = shift + iadd  # of so many low bits
nearest = mask + shift + cmp
stochastic = mask + logic + cmp
pseudo = mask + 3 * shift + 2 * logic + cmp
of_value = mask + logic + shift + 2 * iadd + 2 * cmp  # its size, its low bits, rounded up, its sign
NEAREST = of_value + nearest
told = nonzero("pseudo") * (pseudo - nearest)
SHIFTED = NEAREST + told + nonzero("stochastic") * (stochastic - nearest - told)
ALIGNED = 2 * (iadd + CLIPPED) + shift + NEAREST + CLIPPED
