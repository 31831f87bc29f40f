"""Cost of one draw of `refimpl.kernels.random.words`: two times Philox of ten rounds.

The first round of the second one begins with the number of the element, whose arithmetic is that of an index.
"""

from .cost import iadd, imul, logic, shift

a_round = imul + shift + iadd + 5 * logic
key = shift + 2 * logic + 10 * a_round
words = key + logic + 10 * a_round - (imul + shift + 2 * logic)
