"""The net of a step in whole numbers, where the step says so (`methods.strategy.Strategy.quantizes`)."""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from ..compiler.compile import compile
from ..graph import Graph
from ..methods.strategy import Strategy
from ..plan.plan import Plan
from ..training.inputs import Inputs, samples, taken
from ..training.state import initial
from .quantize import outline, quantize
from .share_exponents import share_exponents
from .widen import widen

CALIBRATED_ON = 256  # samples, evenly over all


class NetForm(NamedTuple):
    """How a net becomes one of whole numbers: with its weights; without, for its costs; one that is of them already."""

    made: Callable[..., Graph]
    outlined: Callable[..., Graph]
    again: Callable[..., Graph]


def as_it_is(graph: Graph, trained: Collection[str], **settings) -> Graph:
    """The same net."""
    return graph


FORMS = {  # `Strategy.form` → what makes it
    "scales": NetForm(quantize, outline, widen),
    "exponents": NetForm(share_exponents, share_exponents, as_it_is),
}


def made_for(step: Strategy, graph: Graph, x: Inputs, seed: int = 0, trained: Collection[str] = ()) -> Graph:
    """The net, or the same in whole numbers, calibrated on some of x (M, H, W, C); seed: of weights that are drawn.

    Of one that holds whole numbers with scales already, the weights of `trained` nodes get the bits that the step
    trains (`widen.widen`); one that shares exponents stays as it is. ValueError as these functions have it.
    """
    settings = step.quantizes
    if settings is None:
        return graph
    if is_quantized(graph):
        return FORMS[step.form].again(graph, trained, seed=seed, **settings)
    weights = initial(compile(graph, None, 1), seed)
    chosen = np.linspace(0, samples(x) - 1, min(samples(x), CALIBRATED_ON)).astype(np.int64)
    found = taken(x, chosen)
    if isinstance(found, Mapping):
        raise ValueError(f"{graph.name} must have one input to be made one of whole numbers, got {', '.join(found)}")
    return FORMS[step.form].made(graph, weights, np.asarray(found), **settings)


def outlined_for(step: Strategy, graph: Graph, trained: Collection[str] = ()) -> Graph:
    """The net, or the same in whole numbers, without weights, for its costs alone. ValueError likewise."""
    settings = step.quantizes
    if settings is None:
        return graph
    form = FORMS[step.form]
    return form.again(graph, trained, **settings) if is_quantized(graph) else form.outlined(graph, **settings)


def weights_that_train(plan: Plan, graph: Graph) -> list[str]:
    """Names of the nodes whose weights, not only biases, a plan trains."""
    return [name for name, arrays in plan.trained(graph).items() if "w" in arrays]


def is_quantized(graph: Graph) -> bool:
    """Does a net hold whole numbers?"""
    return any(parameter.quantized for parameter in graph.parameters.values())
