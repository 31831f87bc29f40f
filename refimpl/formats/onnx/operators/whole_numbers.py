"""Floor, Ceil, Round and Sign of each element. Forward only: gradients stop here."""

from ..walk import OnnxNode

KINDS = {"Floor": 0, "Ceil": 1, "Round": 2}
OPERATORS = (*KINDS, "Sign")


def convert(here: OnnxNode) -> None:
    """A staircase, or a by_sign."""
    x = here.tensor(0)
    if here.op == "Sign":
        here.like(here.graph.by_sign(here.name, x.tensor), x)
    else:
        here.like(here.graph.staircase(here.name, x.tensor, KINDS[here.op]), x)
