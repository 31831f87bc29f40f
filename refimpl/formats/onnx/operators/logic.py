"""And, Or, Xor and Not of what comparisons tell, 1 and 0: products, sums and differences. Forward only."""

from ..walk import OnnxNode
from .add import convert as total
from .mul import convert as product
from .sub import convert as difference

MADE_OF = {"And": product, "Or": total, "Xor": difference}
OPERATORS = (*MADE_OF, "Not")


def convert(here: OnnxNode) -> None:
    """A by_sign of a mul, an add or a sub; of Not of what it takes."""
    if here.op == "Not":
        x = here.tensor(0)
        here.like(here.graph.by_sign(here.name, x.tensor, 1.0, 1.0, 0.0), x)
        return
    name = here.name
    here.name = here.walk.unique(f"{name}.both")
    MADE_OF[here.op](here)
    x = here.given_value()
    here.like(here.graph.by_sign(name, x.tensor, 1.0, 0.0, 1.0), x)
