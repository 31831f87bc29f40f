"""A difference of two tensors of one shape."""

from ..walk import OnnxNode

OPERATORS = ("Sub",)


def convert(here: OnnxNode) -> None:
    """A sub."""
    a, b, x = here.pair()
    here.like(here.graph.sub(here.name, a, b), x)
