"""TopK: the largest or smallest elements along an axis, and where they stand. Gradients go to the elements alone.

How many they are is a constant. At the end of a net it is left out, as Softmax is: a loss takes scores.
"""

from ..layout import packed
from ..value import Unsupported, Value
from ..walk import OnnxNode
from .softmax import left_out

OPERATORS = ("TopK",)


def convert(here: OnnxNode) -> None:
    """A top_values, and a top_places, of what is read of them."""
    outputs = {i for i, name in enumerate(here.node.output) if name and name in here.walk.consumers}
    if outputs == {0} and left_out(here):
        return
    axis = int(here.attr("axis", -1)) % len(here.tensor(0).shape)
    count = int(here.attr("k")) if here.opset < 10 else int(here.constant(1, "number").reshape(-1)[0])
    x, smallest = here.rows(0, axis), not here.attr("largest", 1)
    length, graph = x.shape[axis], here.graph
    if not 1 <= count <= length:
        raise Unsupported(f"it takes {count} of the {length} elements along axis {axis}")
    layout = [tuple((n, step // length * count) for n, step in digits) for digits in x.layout]
    layout[axis] = packed([(count, 1)])
    for i in sorted(outputs):
        make = graph.top_places if i else graph.top_values
        tensor = make(here.free, x.tensor, count, smallest)
        here.give_value(Value(tensor, (*x.own[:-1], count), tuple(layout)), i)
