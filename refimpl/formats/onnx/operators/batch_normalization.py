"""BatchNormalization: scale, B, mean, var  →  gamma, beta, running_mean, running_var.

ONNX's momentum is the share of the old statistics, ours that of the new ones.
"""

import math
from dataclasses import replace

from ..value import Unsupported
from ..walk import IN_TRAINING, OnnxNode

OPERATORS = ("BatchNormalization",)
NAMES = ("gamma", "beta", "running_mean", "running_var")


def convert(here: OnnxNode) -> None:
    """A batch_norm, trainable as any of ours."""
    if here.attr("training_mode", 0):
        here.walk.note(IN_TRAINING)
    rank = len(here.tensor(0).layout)
    tokens = rank == 2 and here.walk.features(here.tensor(0)) is None  # of all samples, one below the other
    if tokens:
        x = here.rows(0)
        own = here.walk.placed(x, ((math.prod(x.own), 1),), (1, x.shape[0], x.shape[1]))
    elif rank == 2:
        x = here.features(0)
        if len(x.layout[1]) > 1:
            raise Unsupported("it normalises a flattened map")
        own = here.walk.placed(x, x.layout[1], (1, 1, *x.own))
    else:
        own = here.map(0)
    y = here.graph.batch_norm(
        here.name, own, float(here.attr("epsilon", 1e-5)), round(1 - float(here.attr("momentum", 0.9)), 6)
    )
    for i, name in enumerate(NAMES, start=1):
        here.store(f"{here.name}.{name}", i, (0,))
    if tokens:
        here.like(y, replace(x, own=(1, *x.shape)))
    elif rank == 2:
        here.give(here.graph.flatten(here.walk.unique(f"{here.name}.features"), y), (0, 1))
    else:
        here.give_map(y, rank)
