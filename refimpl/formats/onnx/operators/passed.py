"""Operators that give what they get: Identity, Dropout in inference, Cast between floats, a Softmax at the end."""

from ..value import FLOATS, Unsupported
from ..walk import Step

OPERATORS = ("Identity", "Dropout", "Cast", "Softmax", "LogSoftmax")


def convert(step: Step) -> None:
    """No node of ours."""
    x = step.tensor(0)
    if step.op == "Cast" and step.attr("to") not in FLOATS:
        raise Unsupported("it casts to what is no float")
    if step.op in ("Softmax", "LogSoftmax"):
        if step.consumers() != [None]:
            raise Unsupported("a softmax is read at the end of the net alone")
        step.walk.notes.append(f"the net ends with {step.op}; it trains, and gives scores, before it")
    step.give(x.tensor, x.axes, x.mixed)
