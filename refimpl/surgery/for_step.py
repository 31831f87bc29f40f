"""The net of a step in whole numbers, where the step says so (`methods.strategy.Strategy.quantizes`)."""

from collections.abc import Callable, Mapping

import numpy as np

from ..compiler.compile import compile
from ..graph import Graph
from ..methods.strategy import Strategy
from ..training.inputs import Inputs, samples, taken
from ..training.state import initial
from .quantize import outline, quantize
from .share_exponents import share_exponents

CALIBRATED_ON = 256  # samples, evenly over all
FORMS: dict[str, tuple[Callable[..., Graph], Callable[..., Graph]]] = {  # a net with weights; an outline without
    "scales": (quantize, outline), "exponents": (share_exponents, share_exponents),
}  # fmt: skip


def made_for(step: Strategy, graph: Graph, x: Inputs, seed: int = 0) -> Graph:
    """The net, or the same in whole numbers, calibrated on some of x (M, H, W, C); seed: of weights that are drawn.

    One that holds whole numbers already stays as it is. ValueError as the function of the form has it.
    """
    settings = step.quantizes
    if settings is None or is_quantized(graph):
        return graph
    weights = initial(compile(graph, None, 1), seed)
    chosen = np.linspace(0, samples(x) - 1, min(samples(x), CALIBRATED_ON)).astype(np.int64)
    found = taken(x, chosen)
    if isinstance(found, Mapping):
        raise ValueError(f"{graph.name} must have one input to be made one of whole numbers, got {', '.join(found)}")
    return FORMS[step.form][0](graph, weights, np.asarray(found), **settings)


def outlined_for(step: Strategy, graph: Graph) -> Graph:
    """The net, or the same in whole numbers, without weights, for its costs alone. ValueError likewise."""
    settings = step.quantizes
    return graph if settings is None or is_quantized(graph) else FORMS[step.form][1](graph, **settings)


def is_quantized(graph: Graph) -> bool:
    """Does a net hold whole numbers?"""
    return any(parameter.quantized for parameter in graph.parameters.values())
