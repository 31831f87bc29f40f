"""PRelu: a rectifier whose slopes train.

slope, along axes of the input  →  w
"""

from ..arithmetic import beside, weights
from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("PRelu",)


def convert(here: OnnxNode) -> None:
    """A prelu."""
    found = beside(here)
    if found is None or found.place == 0:
        raise Unsupported("its slopes depend on the input of the graph")
    weights(here, found, found.x, here.graph.prelu)
