"""MaxPool and AveragePool."""

from ..value import MAP, ROW, Unsupported
from ..walk import Place
from ..windows import pad_of, two

OPERATORS = ("MaxPool", "AveragePool")


def convert(here: Place) -> None:
    """A max_pool or an avg_pool."""
    x, rank = here.map(0), len(here.tensor(0).axes)
    window = two(here.attr("kernel_shape"), 1)
    stride = two(here.attr("strides", (1,) * (rank - 2)), 1)
    if any(n != 1 for n in here.attr("dilations", (1,))):
        raise Unsupported(f"its windows are dilated by {here.attr('dilations')}")
    size = here.graph.shape(x)[1:3]
    pad = pad_of(here, size, window, stride)
    if here.attr("ceil_mode", 0):
        for n, w, s, sides in zip(size, window, stride, pad, strict=True):
            if (n + sum(sides) - w) % s:
                raise Unsupported("its last windows reach over the edge (ceil_mode)")
    if len(here.node.output) > 1 and here.node.output[1]:
        raise Unsupported("it gives the places of the maxima")
    if here.op == "MaxPool":
        y = here.graph.max_pool(here.name, x, window, stride, pad)
    else:
        attrs = {"window": window, "stride": stride, "pad": pad}
        y = here.graph.add_node(
            here.name, "avg_pool", (x,), {**attrs, "count_include_pad": bool(here.attr("count_include_pad", 0))}, {}
        )
    here.give(y, MAP if rank == 4 else ROW)
