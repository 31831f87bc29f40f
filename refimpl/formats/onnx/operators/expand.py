"""Expand: a tensor spread along axes of length 1; no node before arithmetic that does so itself."""

import numpy as np

from ..arithmetic import joint, widened
from ..value import Value
from ..walk import OnnxNode

OPERATORS = ("Expand",)
ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def convert(here: OnnxNode) -> None:
    """A spread_out, or no node of ours."""
    x, shape = here.tensor(0), tuple(int(n) for n in here.constant(1, "shape"))
    if len(shape) >= len(x.shape) and shape[:1] == (here.walk.batch,):  # a file with a batch of its own says it here
        shape = (1, *shape[1:])
    wide = joint((x.shape, shape))
    if wide == x.shape or all(spreads(here, node, wide) for node in here.consumers()):
        here.like(x.tensor, x)
    else:
        here.give_value(widened(here, x, wide))


def spreads(here: OnnxNode, node, wide: tuple[int, ...]) -> bool:
    """Is a node arithmetic with another tensor, which is as wide?"""
    if node is None or node.op_type not in ARITHMETIC:
        return False
    others = [here.walk.values.get(name) for name in node.input if name != here.node.output[0]]
    return len(others) == 1 and isinstance(others[0], Value | np.ndarray) and others[0].shape == wide
