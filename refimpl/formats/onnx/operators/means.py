"""Means, sums, Euclidean norms and maxima of a map over rows, columns or channels; GlobalAveragePool and GlobalMaxPool.

The mean over rows and columns is a global_avg_pool.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..layout import SAMPLES, shrunk
from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = (
    "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax", "ReduceMin",
    "ReduceSumSquare",
)  # fmt: skip
MEANS = ("GlobalAveragePool", "ReduceMean")
BY_INPUT = {"ReduceSum": 13}  # the first opset in which axes are an input, default 18


def convert(here: OnnxNode) -> None:
    """A global_avg_pool, a sum_over, a norm_over or a max_over."""
    x = here.tensor(0)
    reduced(here, x, *asked(here, len(x.shape)), made)


def reduced(
    here: OnnxNode, x: Value, gone: set[int], keeps: bool, make: Callable[[OnnxNode, str, Sequence[int]], str]
) -> None:  # fmt: skip
    """Give what `make` makes of x over axes that become one; keeps: and stay, with length 1.

    make: of the node, our map, and 1 for each of its rows, columns and channels that become one, else 0.
    """
    if not gone:
        here.like(x.tensor, x)
        return
    if SAMPLES in {digit for axis in gone for digit in x.layout[axis]}:
        raise Unsupported("it makes one of all samples")
    if len(x.own) == 3 and all(axis is None or isinstance(axis, int) for axis in x.axes):
        places = {x.axes[axis] for axis in gone} - {None}
        over = [axis in places for axis in (1, 2, 3)]
    else:
        x, over = here.walk.grouped(x, [axis in gone for axis in range(len(x.shape))])
    y = make(here, x.tensor, tuple(map(int, over)))
    layout = shrunk([() if axis in gone else digits for axis, digits in enumerate(x.layout)], x.own, over)
    if not keeps:
        layout = [digits for axis, digits in enumerate(layout) if axis not in gone]
    here.give_value(Value(y, here.graph.shape(y)[1:], tuple(layout)))


def asked(here: OnnxNode, rank: int) -> tuple[set[int], bool]:
    """The axes that become one, and whether they stay with length 1; Unsupported where the samples are among them."""
    if here.op.startswith("Global"):
        return set(range(2, rank)), True
    by_input = here.opset >= BY_INPUT.get(here.op, 18)
    axes: Any = here.constant(1, "axes") if by_input else here.attr("axes")
    if axes is None or not len(axes):
        axes = () if here.attr("noop_with_empty_axes", 0) else range(rank)
    found = {int(a) % rank for a in axes}
    if 0 in found:
        raise Unsupported(f"it makes one of all samples, or knows of no axes: {sorted(found)}")
    return found, bool(here.attr("keepdims", 1))


def made(here: OnnxNode, x: str, over: Sequence[int]) -> str:
    """What a node makes of our map."""
    graph, part = here.graph, here.walk.unique
    whole = [n == 1 or o for n, o in zip(graph.shape(x)[1:], over, strict=True)]
    if here.op in MEANS and whole[:2] == [True, True] and not over[2]:
        return graph.global_avg_pool(here.name, x)
    if here.op == "ReduceL2":
        return graph.norm_over(here.name, x, over)
    if here.op in ("ReduceMax", "GlobalMaxPool"):
        return graph.max_over(here.name, x, over)
    if here.op == "ReduceMin":
        lowest = graph.max_over(part(f"{here.name}.max"), graph.affine(part(f"{here.name}.negative"), x, -1.0), over)
        return graph.affine(here.name, lowest, -1.0)
    if here.op == "ReduceSumSquare":
        x = graph.mul(part(f"{here.name}.square"), x, x)
    return graph.sum_over(here.name, x, over, here.op in MEANS)
