"""Expand: a tensor spread along axes of length 1, before arithmetic that does so itself."""

import numpy as np

from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("Expand",)
ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def convert(here: OnnxNode) -> None:
    """No node of ours."""
    x, shape = here.tensor(0), tuple(int(n) for n in here.constant(1, "shape"))
    wide = np.broadcast_shapes(x.shape, shape)
    if wide != x.shape and not all(spreads(here, node, wide) for node in here.consumers()):
        raise Unsupported(f"it spreads {x.shape} to {wide}, which is read before arithmetic with such a tensor alone")
    here.like(x.tensor, x)


def spreads(here: OnnxNode, node, wide: tuple[int, ...]) -> bool:
    """Is a node arithmetic with another tensor, which is as wide?"""
    if node is None or node.op_type not in ARITHMETIC:
        return False
    others = [here.walk.values.get(name) for name in node.input if name != here.node.output[0]]
    return len(others) == 1 and isinstance(others[0], Value | np.ndarray) and others[0].shape == wide
