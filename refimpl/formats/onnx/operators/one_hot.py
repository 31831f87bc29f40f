"""OneHot: a row of numbers for each index, of a depth that is a constant. Forward only: gradients stop here."""

import math

from ..layout import row_major
from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("OneHot",)


def convert(here: OnnxNode) -> None:
    """A one_hot, whose rows are a new axis."""
    x, depth = here.tensor(0), int(here.constant(1, "depth").reshape(-1)[0])
    off, on = (float(n) for n in here.constant(2, "values").reshape(-1))
    rank = len(x.shape)
    axis = int(here.attr("axis", -1)) % (rank + 1)
    if axis == 0:
        raise Unsupported("it makes a new axis before samples")
    count = math.prod(x.shape)
    tensor = here.walk.laid(x, range(1, rank), (1, count, 1))
    y = here.graph.one_hot(here.name, tensor, depth, on, off)
    layout = here.walk.in_order((*x.layout, ()), row_major((*x.shape, depth)))
    here.give_value(Value(y, (1, count, depth), (*layout[:axis], layout[-1], *layout[axis:-1])))
