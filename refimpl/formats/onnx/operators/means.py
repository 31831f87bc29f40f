"""GlobalAveragePool, and ReduceMean over a whole map."""

from ..value import Unsupported
from ..walk import Step

OPERATORS = ("GlobalAveragePool", "ReduceMean")


def convert(step: Step) -> None:
    """A global_avg_pool, whose axes of length 1 are not stored."""
    x, rank = step.map(0), len(step.tensor(0).axes)
    keeps = True
    if step.op == "ReduceMean":
        axes = step.attr("axes") if step.opset < 18 else step.constant(1, "axes")
        keeps = bool(step.attr("keepdims", 1))
        if axes is None or sorted(int(a) % rank for a in axes) != list(range(2, rank)):
            raise Unsupported(f"it takes the mean over the axes {axes}, which are not those of a whole map")
    y = step.graph.global_avg_pool(step.name, x)
    step.give(y, (0, 1, *(None,) * (rank - 2 if keeps else 0)))
