"""Costs of refimpl.kernels.requantize, for the formulas of operators: rounded once, or twice where `twice` is set."""

from .cost import cmp, iadd, imul, logic, nonzero, shift


def rounded(once, twice):
    """The one or the other, as the attribute `twice` says."""
    return once + nonzero("twice") * (twice - once)


# where multiplier and shift are elements of arrays, and where they are attributes, whose own arithmetic counts nothing
OF_ARRAYS = rounded(imul + 3 * iadd + 2 * shift, imul + 5 * iadd + 5 * shift + 7 * cmp + logic)
OF_ATTRIBUTES = rounded(imul + iadd + shift, imul + 2 * iadd + 3 * shift + 5 * cmp + logic)
SATURATED = 2 * cmp
