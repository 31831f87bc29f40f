"""The same operator of ours on each element alone, whatever its axes stand for."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..value import Unsupported
from ..walk import OnnxNode

Make = Callable[[OnnxNode, str], str]


def bounds(here: OnnxNode) -> tuple[float | None, float | None]:
    """Lower and upper bound of a Clip: inputs, or attributes before opset 11; None where there is none."""
    found = [here.attr(name) if here.opset < 11 else here.constant(i, "bound") for i, name in ((1, "min"), (2, "max"))]
    low, high = (None if b is None else float(np.asarray(b).reshape(-1)[0]) for b in found)
    return low, high


def clip(here: OnnxNode, x: str) -> str:
    """A relu, a relu6, or a clip."""
    low, high = bounds(here)
    if (low, high) == (0.0, 6.0):
        return here.graph.relu6(here.name, x)
    if low == 0.0 and (high is None or high >= np.finfo(np.float32).max):
        return here.graph.relu(here.name, x)
    if low is None or high is None:
        raise Unsupported(f"it limits on one side, to {low if high is None else high}")
    return here.graph.clip(here.name, x, low, high)


def attribute(here: OnnxNode, name: str, default: Any) -> float:
    """An attribute that is a number."""
    return float(here.attr(name, default))


MAKE: dict[str, Make] = {
    "Relu": lambda here, x: here.graph.relu(here.name, x),
    "Clip": clip,
    "Gelu": lambda here, x: here.graph.gelu(here.name, x, here.attr("approximate", "none") == "tanh"),
    "HardSigmoid": lambda here, x: here.graph.hard_sigmoid(
        here.name, x, attribute(here, "alpha", 0.2), attribute(here, "beta", 0.5)
    ),
    "HardSwish": lambda here, x: here.graph.hard_swish(here.name, x),
    "LeakyRelu": lambda here, x: here.graph.leaky_relu(here.name, x, attribute(here, "alpha", 0.01)),
    "Tanh": lambda here, x: here.graph.tanh(here.name, x),
}
OPERATORS = tuple(MAKE)


def convert(here: OnnxNode) -> None:
    """The same operator of ours."""
    x = here.tensor(0)
    here.like(MAKE[here.op](here, x.tensor), x)
