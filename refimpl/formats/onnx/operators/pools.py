"""MaxPool and AveragePool."""

from ..value import Unsupported
from ..walk import OnnxNode
from ..windows import pad_of, two

OPERATORS = ("MaxPool", "AveragePool")


def convert(here: OnnxNode) -> None:
    """A max_pool or an avg_pool."""
    x, rank = here.map(0), len(here.tensor(0).axes)
    window = two(here.attr("kernel_shape"), 1)
    stride = two(here.attr("strides", (1,) * (rank - 2)), 1)
    if any(n != 1 for n in here.attr("dilations", (1,))):
        raise Unsupported(f"its windows are dilated by {here.attr('dilations')}")
    size = here.graph.shape(x)[1:3]
    pad = pad_of(here, size, window, stride)
    ceil = bool(here.attr("ceil_mode", 0))
    if here.op == "MaxPool":
        y = here.graph.max_pool(here.name, x, window, stride, pad, ceil)
    else:
        counts = bool(here.attr("count_include_pad", 0))
        y = here.graph.avg_pool(here.name, x, window, stride, pad, ceil, counts)
    here.give_map(y, rank)
