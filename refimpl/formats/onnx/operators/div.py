"""A quotient: of two tensors a product with the reciprocal; of a tensor and a constant, with the inverse as weights.

By √2 at the beginning of x·(1 + erf(x/√2))/2, as exports write it: a gelu.
"""

from dataclasses import replace

from ..arithmetic import WithConstant, beside, line, spread, weights
from ..gelu import gelu
from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Div",)


def convert(here: OnnxNode) -> None:
    """A gelu, a mul_weight or an affine; a mul, or a mul_spread, of the reciprocal of what divides."""
    if found := beside(here):
        constant(here, found)
    elif wide := spread(here):
        x, own, other, first = wide
        if first == 0:
            other = reciprocal(here, other)
        else:
            own = reciprocal(here, own)
        here.like(here.graph.mul_spread(here.name, own, other), x)
    else:
        a, b, x = here.pair()
        here.like(here.graph.mul(here.name, a, reciprocal(here, b)), x)


def constant(here: OnnxNode, found: WithConstant) -> None:
    """A tensor by a constant, or a constant by a tensor."""
    x = found.x
    if found.place == 0:
        x = replace(x, tensor=reciprocal(here, x.tensor))
        if found.number is None:
            weights(here, found, x, here.graph.mul_weight)
        else:
            line(here, x, found.number, 0.0)
        return
    if not found.array.all():
        raise Unsupported("it divides by 0")
    if found.number is None:
        weights(here, found, x, here.graph.mul_weight, inverse=True)
    elif not gelu(here, found.number):
        line(here, x, 1 / found.number, 0.0)


def reciprocal(here: OnnxNode, tensor: str) -> str:
    """1/x, made once."""
    return here.walk.once(tensor, "reciprocal", lambda name: here.graph.reciprocal(name, tensor))
