"""Costs of refimpl.kernels.rounding, for the formulas of passes: floats made whole numbers of 8 bits, and masks."""

from .cost import add, cmp, convert, div, iadd, load, logic, mul, nonzero, shift
from .draws import words

bit = load + shift + logic  # of a mask
packed = load + 2 * cmp  # is a number at an end?
larger = 3 * cmp  # a magnitude, and the larger of two
scaled = load + div + cmp  # a scale from a magnitude
floored = 2 * convert + cmp + iadd  # cut, back, and one less where it was cut upwards
at_random = floored + convert + add + mul + convert + cmp + iadd  # one more for a share of the draws
drawn = 2 * load + words  # step and seed
rounded = div + at_random + 2 * cmp  # up to 127 steps of a scale
stepped = nonzero("scaled") * (div - mul) + mul + convert + mul + add + mul + 2 * cmp + add + at_random + iadd + 2 * cmp
