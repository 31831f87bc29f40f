"""BatchNormalization: scale, B, mean, var  →  gamma, beta, running_mean, running_var.

ONNX's momentum is the share of the old statistics, ours that of the new ones.
"""

from ..value import MAP, ROW, Unsupported
from ..walk import Step

OPERATORS = ("BatchNormalization",)
NAMES = ("gamma", "beta", "running_mean", "running_var")


def convert(step: Step) -> None:
    """A batch_norm, trainable as any of ours."""
    rank = len(step.tensor(0).axes)
    if rank == 2:
        x = step.features(0)
        if x.mixed:
            raise Unsupported("it normalises a flattened map")
        own = step.walk.once(x.tensor, "map", lambda name: step.graph.as_map(name, x.tensor))
    else:
        own = step.map(0)
    y = step.graph.batch_norm(
        step.name, own, float(step.attr("epsilon", 1e-5)), round(1 - float(step.attr("momentum", 0.9)), 6)
    )
    for i, name in enumerate(NAMES, start=1):
        step.store(f"{step.name}.{name}", i, (0,))
    if rank == 2:
        step.give(step.graph.flatten(step.walk.unique(f"{step.name}.features"), y), (0, 1))
    else:
        step.give(y, MAP if rank == 4 else ROW)
