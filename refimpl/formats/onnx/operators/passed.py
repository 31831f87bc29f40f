"""Operators that give what they get: Identity, Dropout in inference and Cast between floats."""

from ..value import FLOATS, Unsupported
from ..walk import OnnxNode

OPERATORS = ("Identity", "Dropout", "Cast")


def convert(here: OnnxNode) -> None:
    """No node of ours."""
    x = here.tensor(0)
    if here.op == "Cast" and here.attr("to") not in FLOATS:
        raise Unsupported("it casts to what is no float")
    here.like(x.tensor, x)
