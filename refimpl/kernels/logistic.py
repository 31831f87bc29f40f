"""The logistic function, for bodies of several operators."""

import math

from .kernel import helper


@helper
def logistic(v, one):
    """1 / (1 + exp(−v)) of a float v; one: 1 in its dtype. No power of e above 1 is taken, so none overflows."""
    e = math.exp(-abs(v))
    return (one if v >= 0 else e) / (one + e)
