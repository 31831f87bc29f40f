"""Softmax and LogSoftmax along an axis. At the end of a net they are left out: a loss takes scores."""

from dataclasses import replace

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Softmax", "LogSoftmax")


def left_out(here: OnnxNode) -> bool:
    """Is a node the end of the net? Then it gives what it takes, which is said."""
    if here.readers() != [None]:
        return False
    x = here.tensor(0)
    here.walk.notes.append(f"the net ends with {here.op}; it trains, and gives scores, before it")
    here.like(x.tensor, x)
    return True


def convert(here: OnnxNode) -> None:
    """A softmax; what it takes without the logarithm of the sum of its exponentials; or no node of ours."""
    x = here.tensor(0)
    if left_out(here):
        return
    axis = int(here.attr("axis", -1 if here.opset >= 13 else 1)) % len(x.shape)
    if here.opset < 13 and axis != len(x.shape) - 1:
        raise Unsupported("over several axes it is read at the end of the net alone")
    rows = here.rows(0, axis)
    if here.op == "Softmax":
        here.like(here.graph.softmax(here.name, rows.tensor), rows)
        return
    graph, part, own = here.graph, here.walk.unique, rows.own
    if len(own) == 1:
        rows = replace(rows, tensor=graph.as_map(part(f"{here.name}.map"), rows.tensor), own=(1, 1, *own))
    over = (0, 0, 1)
    most = graph.max_over(part(f"{here.name}.max"), rows.tensor, over)
    down = graph.affine(part(f"{here.name}.down"), most, -1.0)
    below = graph.add_spread(part(f"{here.name}.below"), rows.tensor, down)
    total = graph.sum_over(part(f"{here.name}.sum"), graph.exponential(part(f"{here.name}.exp"), below), over)
    off = graph.affine(part(f"{here.name}.off"), graph.logarithm(part(f"{here.name}.log"), total), -1.0)
    here.give_value(replace(rows, tensor=graph.add_spread(here.free, below, off)))
