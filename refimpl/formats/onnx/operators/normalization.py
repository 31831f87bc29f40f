"""InstanceNormalization and GroupNormalization: scale, B  →  gamma, beta, trainable as those of a batch norm."""

import numpy as np

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("InstanceNormalization", "GroupNormalization")


def convert(here: OnnxNode) -> None:
    """A group_norm."""
    x, rank = here.map(0), len(here.tensor(0).axes)
    channels = here.graph.shape(x)[3]
    groups = channels if here.op == "InstanceNormalization" else int(here.attr("num_groups"))
    sizes = {np.size(here.constant(i, "scale")) for i in (1, 2)}
    if sizes != {channels}:
        raise Unsupported(f"it has scales for {sizes} channels, its input has {channels}")
    y = here.graph.group_norm(here.name, x, groups, float(here.attr("epsilon", 1e-5)))
    for i, name in enumerate(("gamma", "beta"), start=1):
        here.store(f"{here.name}.{name}", i, (0,))
    here.give_map(y, rank)
