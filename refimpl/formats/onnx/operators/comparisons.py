"""A comparison of two tensors, or of a tensor and a constant: 1 where it holds, else 0, by their difference's sign.

Two infinities of one sign are told neither equal nor unequal. Forward only: gradients stop here.
"""

from ..walk import OnnxNode
from .sub import convert as difference

HOLDS = {  # below 0, at 0, above 0
    "Equal": (0.0, 1.0, 0.0), "Greater": (0.0, 0.0, 1.0), "GreaterOrEqual": (0.0, 1.0, 1.0), "Less": (1.0, 0.0, 0.0),
    "LessOrEqual": (1.0, 1.0, 0.0),
}  # fmt: skip
OPERATORS = tuple(HOLDS)


def convert(here: OnnxNode) -> None:
    """A by_sign of the difference."""
    name = here.name
    here.name = here.walk.unique(f"{name}.difference")
    difference(here)
    x = here.given_value()
    here.like(here.graph.by_sign(name, x.tensor, *HOLDS[here.op]), x)
