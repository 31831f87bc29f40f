"""The same operator of ours on each element alone, whatever its axes stand for."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..value import Unsupported
from ..walk import Step

Make = Callable[[Step, str], str]


def bounds(step: Step) -> tuple[float | None, float | None]:
    """Lower and upper bound of a Clip: inputs, or attributes before opset 11; None where there is none."""
    found = [step.attr(name) if step.opset < 11 else step.constant(i, "bound") for i, name in ((1, "min"), (2, "max"))]
    low, high = (None if b is None else float(np.asarray(b).reshape(-1)[0]) for b in found)
    return low, high


def clip(step: Step, x: str) -> str:
    """A relu, a relu6, or a clip."""
    low, high = bounds(step)
    if (low, high) == (0.0, 6.0):
        return step.graph.relu6(step.name, x)
    if low == 0.0 and (high is None or high >= np.finfo(np.float32).max):
        return step.graph.relu(step.name, x)
    if low is None or high is None:
        raise Unsupported(f"it limits on one side, to {low if high is None else high}")
    return step.graph.clip(step.name, x, low, high)


def attribute(step: Step, name: str, default: Any) -> float:
    """An attribute that is a number."""
    return float(step.attr(name, default))


MAKE: dict[str, Make] = {
    "Relu": lambda step, x: step.graph.relu(step.name, x),
    "Clip": clip,
    "Gelu": lambda step, x: step.graph.gelu(step.name, x, step.attr("approximate", "none") == "tanh"),
    "HardSigmoid": lambda step, x: step.graph.hard_sigmoid(
        step.name, x, attribute(step, "alpha", 0.2), attribute(step, "beta", 0.5)
    ),
    "HardSwish": lambda step, x: step.graph.hard_swish(step.name, x),
    "LeakyRelu": lambda step, x: step.graph.leaky_relu(step.name, x, attribute(step, "alpha", 0.01)),
    "Tanh": lambda step, x: step.graph.tanh(step.name, x),
}
OPERATORS = tuple(MAKE)


def convert(step: Step) -> None:
    """The same operator of ours."""
    x = step.tensor(0)
    step.give(MAKE[step.op](step, x.tensor), x.axes, x.mixed)
