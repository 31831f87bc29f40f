"""Softmax along an axis. At the end of a net it is left out, as LogSoftmax is: a loss takes scores."""

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Softmax", "LogSoftmax")


def left_out(here: OnnxNode) -> bool:
    """Is a node the end of the net? Then it gives what it takes, which is said."""
    if here.consumers() != [None]:
        return False
    x = here.tensor(0)
    here.walk.notes.append(f"the net ends with {here.op}; it trains, and gives scores, before it")
    here.like(x.tensor, x)
    return True


def convert(here: OnnxNode) -> None:
    """A softmax, or no node of ours."""
    x = here.tensor(0)
    if left_out(here):
        return
    axis = int(here.attr("axis", -1 if here.opset >= 13 else 1)) % len(x.shape)
    if here.op == "LogSoftmax" or here.opset < 13 and axis != len(x.shape) - 1:
        raise Unsupported("a LogSoftmax, or a Softmax over several axes, is read at the end of the net alone")
    rows = here.rows(0, axis)
    here.like(here.graph.softmax(here.name, rows.tensor), rows)
