"""LayerNormalization over the last axes: scale, B  →  gamma, beta."""

import math
from dataclasses import replace

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("LayerNormalization",)


def convert(here: OnnxNode) -> None:
    """A layer_norm; several axes are one in our tensor."""
    x = here.tensor(0)
    axis = int(here.attr("axis", -1)) % len(x.shape)
    if axis == 0 or not here.given(2):
        raise Unsupported("it normalises samples, or has no bias")
    size = math.prod(x.shape[axis:])
    if here.constant(1, "scale").size != size or here.constant(2, "bias").size != size:
        raise Unsupported(f"its scale and bias are not of {size} elements each")
    merged = replace(x, layout=(*x.layout[:axis], tuple(d for a in x.layout[axis:] for d in a)))
    rows = here.walk.rows(merged, axis)
    y = here.graph.layer_norm(here.name, rows.tensor, float(here.attr("epsilon", 1e-5)))
    for i, name in enumerate(("gamma", "beta"), start=1):
        here.store(f"{here.name}.{name}", i, tuple(range(here.constant(i, name).ndim)))
    if axis == len(x.shape) - 1:
        here.like(y, rows)
    else:
        here.give_value(here.walk.split(replace(rows, tensor=y), x.shape))
