"""GlobalAveragePool, and ReduceMean over a whole map."""

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("GlobalAveragePool", "ReduceMean")


def convert(here: OnnxNode) -> None:
    """A global_avg_pool, whose axes of length 1 are not stored."""
    x, rank = here.map(0), len(here.tensor(0).axes)
    keeps = True
    if here.op == "ReduceMean":
        axes = here.attr("axes") if here.opset < 18 else here.constant(1, "axes")
        keeps = bool(here.attr("keepdims", 1))
        if axes is None or sorted(int(a) % rank for a in axes) != list(range(2, rank)):
            raise Unsupported(f"it takes the mean over the axes {axes}, which are not those of a whole map")
    y = here.graph.global_avg_pool(here.name, x)
    here.give(y, (0, 1, *(None,) * (rank - 2 if keeps else 0)))
