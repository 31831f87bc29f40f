"""Operators on each element alone: what stands for an axis stays."""

from collections.abc import Callable

import numpy as np

from ..value import Unsupported
from ..walk import Step

OPERATORS = ("Relu", "Clip", "Gelu")
Make = Callable[[Step, str], str]


def clip(step: Step, x: str) -> str:
    """A relu or a relu6: the bounds are inputs, or attributes before opset 11."""
    low, high = (
        step.attr(name) if step.opset < 11 else step.constant(i, "bound")
        for i, name in ((1, "min"), (2, "max"))
    )  # fmt: skip
    bounds = tuple(None if b is None else float(np.asarray(b).reshape(-1)[0]) for b in (low, high))
    if bounds == (0.0, 6.0):
        return step.graph.relu6(step.name, x)
    if bounds[0] == 0.0 and bounds[1] is None:
        return step.graph.relu(step.name, x)
    raise Unsupported(f"it limits to {bounds[0]} and {bounds[1]}; 0 and 6 are there")


MAKE: dict[str, Make] = {
    "Relu": lambda step, x: step.graph.relu(step.name, x),
    "Clip": clip,
    "Gelu": lambda step, x: step.graph.gelu(step.name, x, step.attr("approximate", "none") == "tanh"),
}


def convert(step: Step) -> None:
    """The same operator of ours."""
    x = step.tensor(0)
    step.give(MAKE[step.op](step, x.tensor), x.axes, x.mixed)
