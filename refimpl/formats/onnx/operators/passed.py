"""Operators that give what they get: Identity, Dropout in inference, Cast between floats, a Softmax at the end."""

from ..value import FLOATS, Unsupported
from ..walk import OnnxNode

OPERATORS = ("Identity", "Dropout", "Cast", "Softmax", "LogSoftmax")


def convert(here: OnnxNode) -> None:
    """No node of ours."""
    x = here.tensor(0)
    if here.op == "Cast" and here.attr("to") not in FLOATS:
        raise Unsupported("it casts to what is no float")
    if here.op in ("Softmax", "LogSoftmax"):
        if here.consumers() != [None]:
            raise Unsupported("a softmax is read at the end of the net alone")
        here.walk.notes.append(f"the net ends with {here.op}; it trains, and gives scores, before it")
    here.give(x.tensor, x.axes, x.mixed)
