"""The same operator of ours on each element alone, whatever its axes stand for."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..value import Unsupported
from ..walk import OnnxNode

MOST_POWER = 64  # of an exponent, in magnitude
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
    if low is not None and high is not None and low > high:
        return here.graph.constant_like(here.name, x, high)
    return here.graph.clip(here.name, x, -math.inf if low is None else low, math.inf if high is None else high)


def power(here: OnnxNode, x: str) -> str:
    """A power: products for a whole exponent, a root for ½, else exp(n·log x)."""
    exponent = here.constant(1, "exponent")
    n = float(exponent.reshape(-1)[0]) if exponent.size == 1 else math.nan
    if not -MOST_POWER <= n <= MOST_POWER:
        raise Unsupported(f"its exponent is {n:g}, but one number from −{MOST_POWER} to {MOST_POWER} is read")
    named = here.walk.unique
    if n == 0:
        return here.graph.constant_like(here.name, x, 1.0)
    if abs(n) == 0.5:
        y = here.graph.square_root(named(f"{here.name}.root"), x)
    elif n != int(n):
        y = here.graph.affine(named(f"{here.name}.product"), here.graph.logarithm(named(f"{here.name}.log"), x), n)
        return here.graph.exponential(here.free, y)
    else:
        y = product(here, x, int(abs(n)))
    return y if n > 0 else here.graph.reciprocal(here.free, y)


def product(here: OnnxNode, x: str, n: int) -> str:
    """x to the power n from 1, by squares."""
    if n == 1:
        return x
    half = product(here, x, n // 2)
    y = here.graph.mul(here.walk.unique(f"{here.name}.square"), half, half)
    return here.graph.mul(here.walk.unique(f"{here.name}.times"), y, x) if n % 2 else y


def swish(here: OnnxNode, x: str) -> str:
    """x·sigmoid(alpha·x): a silu where alpha is 1."""
    alpha = attribute(here, "alpha", 1.0)
    if alpha == 1:
        return here.graph.silu(here.name, x)
    part = here.graph.affine(here.walk.unique(f"{here.name}.part"), x, alpha)
    return here.graph.mul(here.name, x, here.graph.sigmoid(here.walk.unique(f"{here.name}.sigmoid"), part))


def selu(here: OnnxNode, x: str) -> str:
    """An elu, times gamma."""
    y = here.graph.elu(here.walk.unique(f"{here.name}.elu"), x, attribute(here, "alpha", 1.6732632423543772))
    return here.graph.affine(here.name, y, attribute(here, "gamma", 1.0507009873554805))


def celu(here: OnnxNode, x: str) -> str:
    """alpha·(an elu of x/alpha)."""
    alpha = attribute(here, "alpha", 1.0)
    if alpha <= 0:
        raise Unsupported(f"its alpha is {alpha}, which must be above 0")
    part = here.graph.affine(here.walk.unique(f"{here.name}.part"), x, 1 / alpha)
    return here.graph.affine(here.name, here.graph.elu(here.walk.unique(f"{here.name}.elu"), part), alpha)


def mish(here: OnnxNode, x: str) -> str:
    """x·tanh(log(1 + exp(x)))."""
    soft = here.graph.smooth_relu(here.walk.unique(f"{here.name}.softplus"), x)
    return here.graph.mul(here.name, x, here.graph.tanh(here.walk.unique(f"{here.name}.tanh"), soft))


def attribute(here: OnnxNode, name: str, default: Any) -> float:
    """An attribute that is a number."""
    return float(here.attr(name, default))


MAKE: dict[str, Make] = {
    "Abs": lambda here, x: here.graph.absolute_value(here.name, x),
    "Celu": celu,
    "Elu": lambda here, x: here.graph.elu(here.name, x, attribute(here, "alpha", 1.0)),
    "Erf": lambda here, x: here.graph.error_function(here.name, x),
    "Exp": lambda here, x: here.graph.exponential(here.name, x),
    "Log": lambda here, x: here.graph.logarithm(here.name, x),
    "Mish": mish,
    "Neg": lambda here, x: here.graph.affine(here.name, x, -1.0),
    "Pow": power,
    "Reciprocal": lambda here, x: here.graph.reciprocal(here.name, x),
    "Selu": selu,
    "Softplus": lambda here, x: here.graph.smooth_relu(here.name, x),
    "Softsign": lambda here, x: here.graph.softsign(here.name, x),
    "Swish": swish,
    "Sqrt": lambda here, x: here.graph.square_root(here.name, x),
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
