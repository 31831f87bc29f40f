"""A sum: of two tensors, one of which may be spread along axes of length 1; of a tensor and a constant.

What 0 is added to, as a sum of a list begins, is no node.
"""

from ..arithmetic import beside, line, spread, weights
from ..walk import OnnxNode

OPERATORS = ("Add",)


def convert(here: OnnxNode) -> None:
    """An add, an add_spread, an add_weight, or an affine."""
    if found := beside(here):
        if found.number is not None:
            line(here, found.x, 1.0, found.number)
        else:
            weights(here, found, found.x, here.graph.add_weight)
    elif wide := spread(here):
        x, own, other, _ = wide
        here.like(here.graph.add_spread(here.name, own, other), x)
    else:
        a, b, x = here.pair()
        here.like(here.graph.add(here.name, a, b), x)
