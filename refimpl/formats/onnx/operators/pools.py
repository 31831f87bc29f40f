"""MaxPool and AveragePool."""

from ..value import MAP, ROW, Unsupported
from ..walk import Step
from ..windows import pad_of, two

OPERATORS = ("MaxPool", "AveragePool")


def convert(step: Step) -> None:
    """A max_pool or an avg_pool."""
    x, rank = step.map(0), len(step.tensor(0).axes)
    window = two(step.attr("kernel_shape"), 1)
    stride = two(step.attr("strides", (1,) * (rank - 2)), 1)
    if any(n != 1 for n in step.attr("dilations", (1,))):
        raise Unsupported(f"its windows are dilated by {step.attr('dilations')}")
    size = step.graph.shape(x)[1:3]
    pad = pad_of(step, size, window, stride)
    if step.attr("ceil_mode", 0):
        for n, w, s, sides in zip(size, window, stride, pad, strict=True):
            if (n + sum(sides) - w) % s:
                raise Unsupported("its last windows reach over the edge (ceil_mode)")
    if len(step.node.output) > 1 and step.node.output[1]:
        raise Unsupported("it gives the places of the maxima")
    if step.op == "MaxPool":
        y = step.graph.max_pool(step.name, x, window, stride, pad)
    else:
        attrs = {"window": window, "stride": stride, "pad": pad}
        y = step.graph.add_node(
            step.name, "avg_pool", (x,), {**attrs, "count_include_pad": bool(step.attr("count_include_pad", 0))}, {}
        )
    step.give(y, MAP if rank == 4 else ROW)
