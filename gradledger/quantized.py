"""The net of a command in whole numbers, where the step of its plan says so (`Strategy.quantizes`)."""

import numpy as np

import refimpl as ri
from refimpl.graph import Graph
from refimpl.surgery.quantize import outline
from refimpl.training.inputs import Inputs, samples
from refimpl.training.state import initial

CALIBRATED_ON = 256  # samples, evenly over all


def made(graph: Graph, plan: ri.Plan, x: Inputs, seed: int) -> Graph:
    """The net, or the same in whole numbers, calibrated on some of x (M, H, W, C); seed: of weights that are drawn.

    ValueError where it has no form in whole numbers.
    """
    settings = plan.step.quantizes
    if settings is None or whole(graph):
        return graph
    weights = initial(ri.compile(graph, None, 1), seed)
    chosen = np.linspace(0, samples(x) - 1, min(samples(x), CALIBRATED_ON)).astype(np.int64)
    return ri.surgery.quantize(graph, weights, x[chosen], **settings)


def outlined(graph: Graph, plan: ri.Plan) -> Graph:
    """The net, or the same in whole numbers, for its costs alone. ValueError as `made`."""
    settings = plan.step.quantizes
    return graph if settings is None or whole(graph) else outline(graph, **settings)


def whole(graph: Graph) -> bool:
    """Does a net hold whole numbers already?"""
    return any(p.quantized for p in graph.parameters.values())
