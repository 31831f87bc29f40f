"""Means, sums, Euclidean norms and maxima of a map over rows, columns or channels; GlobalAveragePool and GlobalMaxPool.

The mean over rows and columns is a global_avg_pool.
"""

from collections.abc import Sequence
from typing import Any

from ..value import MAP, ROW, Unsupported, Value
from ..walk import OnnxNode

OPERATORS = (
    "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax", "ReduceMin",
    "ReduceSumSquare",
)  # fmt: skip
BY_INPUT = {"ReduceSum": 13}  # the first opset in which axes are an input, default 18


def convert(here: OnnxNode) -> None:
    """A global_avg_pool, a sum_over, a norm_over or a max_over."""
    x = here.tensor(0)
    rank = len(x.axes)
    places: tuple[int, ...]
    axes, keeps = asked(here, rank)
    if not axes:
        here.give(x.tensor, x.axes, x.mixed)
        return
    if rank in (3, 4):
        tensor, places = here.map(0), MAP if rank == 4 else ROW
        if here.op in ("GlobalAveragePool", "ReduceMean") and axes == set(range(2, rank)):
            y = here.graph.global_avg_pool(here.name, tensor)
            here.give(y, (0, 1, *(None,) * (rank - 2 if keeps else 0)))
            return
    elif rank == 2 and not x.mixed and x.axes == (0, 1):
        tensor, places = here.walk.once(x.tensor, "map", lambda name: here.graph.as_map(name, x.tensor)), (0, 3)
    else:
        raise Unsupported(f"its input has {rank} axes, arranged as {x.axes}")
    gone = {places[a] for a in axes}
    y = made(here, tensor, tuple(int(own in gone) for own in (1, 2, 3)))
    if keeps or rank == 2:
        here.give(y, places if keeps else (0,))
    else:
        left = tuple(places[a] for a in range(rank) if a not in axes)
        value = here.walk.features(Value(y, (*left, *(None,) * (2 - len(left)))))
        here.give(value.tensor, value.axes[: len(left)])


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
    if here.op == "ReduceL2":
        return graph.norm_over(here.name, x, over)
    if here.op in ("ReduceMax", "GlobalMaxPool"):
        return graph.max_over(here.name, x, over)
    if here.op == "ReduceMin":
        lowest = graph.max_over(part(f"{here.name}.max"), graph.affine(part(f"{here.name}.negative"), x, -1.0), over)
        return graph.affine(here.name, lowest, -1.0)
    if here.op == "ReduceSumSquare":
        x = graph.mul(part(f"{here.name}.square"), x, x)
    return graph.sum_over(here.name, x, over, here.op == "ReduceMean")
