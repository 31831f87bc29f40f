"""Gelu as a chain of nodes, as exports write it: x·(1 + erf(x/√2))/2, its three factors in any order."""

import math
from typing import Any

from .value import Value
from .walk import OnnxNode

CLOSE = 1e-5


def gelu(here: OnnxNode, by: float) -> bool:
    """Does this node, which divides a tensor by a number, begin a gelu? Then it gives that, and so does the chain."""
    if not math.isclose(by, math.sqrt(2), rel_tol=CLOSE):
        return False
    source = next(n for n in here.node.input if isinstance(here.walk.values[n], Value))
    chain = behind(here, source)
    if chain is None:
        return False
    x = here.walk.values[source]
    assert isinstance(x, Value)
    here.like(here.graph.gelu(here.name, x.tensor), x)
    for node in chain:
        here.taken_with(node)
    return True


def behind(here: OnnxNode, source: str) -> list[Any] | None:
    """The nodes behind it that make a gelu of `source`; None where there are others."""
    erf = here.only_consumer("Erf")
    plus = erf and here.only_consumer("Add", erf)
    if not plus or here.number(plus, erf.output[0]) != 1:
        return None
    first = here.only_consumer("Mul", plus)
    if not first:
        return None
    halves = [n.output[0] for n in here.walk.consumers.get(source, ()) if halved(here, n, source)]
    if any(name in first.input for name in halves):  # (x/2)·(1 + erf)
        return [erf, plus, first]
    second = here.only_consumer("Mul", first)
    if not second:
        return None
    if source in first.input and halved(here, second, first.output[0]):  # (x·(1 + erf))/2
        return [erf, plus, first, second]
    if halved(here, first, plus.output[0]) and source in second.input:  # x·((1 + erf)/2)
        return [erf, plus, first, second]
    return None


def halved(here: OnnxNode, node: Any, name: str) -> bool:
    """Is a node the half of the tensor `name`?"""
    if node is None or node.op_type not in ("Mul", "Div") or name not in node.input:
        return False
    return here.number(node, name) == 0.5 if node.op_type == "Mul" else here.number(node, name) == 2
