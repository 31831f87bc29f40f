"""A difference: of two tensors, one of which may be spread along axes of length 1; of a tensor and a constant."""

from dataclasses import replace

from ..arithmetic import beside, line, spread, weights
from ..walk import OnnxNode

OPERATORS = ("Sub",)


def convert(here: OnnxNode) -> None:
    """A sub, an add_spread, an add_weight, or an affine; where what is taken off is the wider, behind its negative."""
    if found := beside(here):
        sign = -1.0 if found.place == 0 else 1.0  # of x
        if found.number is not None:
            line(here, found.x, sign, -sign * found.number)
        elif sign > 0:
            weights(here, found, found.x, here.graph.add_weight, factor=-1.0)
        else:
            weights(here, found, replace(found.x, tensor=negative(here, found.x.tensor)), here.graph.add_weight)
    elif wide := spread(here):
        x, own, other, first = wide
        if first == 0:
            other = negative(here, other)
        else:
            own = negative(here, own)
        here.like(here.graph.add_spread(here.name, own, other), x)
    else:
        a, b, x = here.pair()
        here.like(here.graph.sub(here.name, a, b), x)


def negative(here: OnnxNode, tensor: str) -> str:
    """−x, made once."""
    return here.walk.once(tensor, "negative", lambda name: here.graph.affine(name, tensor, -1.0))
