"""A division by one: no node. By √2 at the beginning of x·(1 + erf(x/√2))/2, as exports write it: a gelu."""

import math

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Div",)
CLOSE = 1e-5


def convert(here: OnnxNode) -> None:
    """A gelu, or what it divides."""
    x, by = here.tensor(0), here.alone()
    if by == 1:
        here.like(x.tensor, x)
        return
    chain = gelu(here) if by is not None and math.isclose(by, math.sqrt(2), rel_tol=CLOSE) else None
    if chain is None:
        raise Unsupported("it divides by what is not 1, and begins no gelu")
    here.like(here.graph.gelu(here.name, x.tensor), x)
    for node in chain:
        here.taken_with(node)


def gelu(here: OnnxNode) -> list | None:
    """The four nodes behind it that make a gelu; None where there are others."""
    erf = here.only_consumer("Erf")
    plus = erf and here.only_consumer("Add", erf)
    if not plus or here.number(plus, erf.output[0]) != 1:
        return None
    times = here.only_consumer("Mul", plus)
    if not times:
        return None
    x, halved = here.node.input[0], here.only_consumer("Mul", times)
    if x in times.input and halved and here.number(halved, times.output[0]) == 0.5:
        return [erf, plus, times, halved]
    return None
