"""A division by one: no node. By √2 at the beginning of x·(1 + erf(x/√2))/2, as exports write it: a gelu."""

import math

from ..value import Unsupported
from ..walk import Step

OPERATORS = ("Div",)
CLOSE = 1e-5


def convert(step: Step) -> None:
    """A gelu, or what it divides."""
    x, by = step.tensor(0), step.alone()
    if by == 1:
        step.give(x.tensor, x.axes, x.mixed)
        return
    chain = gelu(step) if by is not None and math.isclose(by, math.sqrt(2), rel_tol=CLOSE) else None
    if chain is None:
        raise Unsupported("it divides by what is not 1, and begins no gelu")
    step.give(step.graph.gelu(step.name, x.tensor), x.axes, x.mixed)
    for node in chain:
        step.taken_with(node)


def gelu(step: Step) -> list | None:
    """The four nodes behind it that make a gelu; None where there are others."""
    erf = step.only_consumer("Erf")
    plus = erf and step.only_consumer("Add", erf)
    if not plus or step.number(plus, erf.output[0]) != 1:
        return None
    times = step.only_consumer("Mul", plus)
    if not times:
        return None
    x, halved = step.node.input[0], step.only_consumer("Mul", times)
    if x in times.input and halved and step.number(halved, times.output[0]) == 0.5:
        return [erf, plus, times, halved]
    return None
