"""Models, one family a file: short functions that build a Graph. `build` makes one by the name of the command line."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

from ..graph import Graph
from ..kernels.passes import ShapeError
from ..storage.files import InputError, quoted
from .efficientnet_lite import efficientnet_lite0
from .lenet import lenet, lenet5, slim_lenet
from .mobilenet_folded import mobilenet_folded
from .mobilenet_v2 import VARIANTS, mobilenet_v2
from .resnet import resnet8, resnet10, resnet18, resnet20, resnet34, resnet74, resnet110
from .vgg import vgg11, vgg16
from .watch import watch_net, watch_weights

__all__ = [
    "MODELS",
    "ModelError",
    "build",
    "efficientnet_lite0",
    "lenet",
    "lenet5",
    "mobilenet_folded",
    "mobilenet_v2",
    "resnet8",
    "resnet10",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet74",
    "resnet110",
    "slim_lenet",
    "vgg11",
    "vgg16",
    "watch_net",
    "watch_weights",
]

MODELS: dict[str, Callable[..., Graph]] = {
    "watch": watch_net,
    "lenet": lenet,
    "lenet5": lenet5,
    "slim_lenet": slim_lenet,
    "resnet8": resnet8,
    "resnet10": resnet10,
    "resnet18": resnet18,
    "resnet20": resnet20,
    "resnet34": resnet34,
    "resnet74": resnet74,
    "resnet110": resnet110,
    "vgg11": vgg11,
    "vgg16": vgg16,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_folded": mobilenet_folded,
    "efficientnet_lite0": efficientnet_lite0,
}


MOST = 10**9  # that a number may be; the products of the largest ones stay within 64 bits
MOST_SIDE, MOST_PIXELS = 10**5, 10**8  # of an input
MOST_BLOCKS = 500  # each is some ten nodes, which take a second to build together
MOST_WIDTH = 100


class ModelError(InputError):
    """No such model, or it cannot be built with these options; the message says what would be right."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known names, or their list where none is near."""
    near = difflib.get_close_matches(str(name)[:100], known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _positive(value, types) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and 0 < value < math.inf


def _whole(value) -> str | None:
    if not _positive(value, int):
        return "a positive whole number"
    return None if value <= MOST else f"at most {MOST:,}"


def _width(value) -> str | None:
    if not _positive(value, (int, float)):
        return "a positive number"
    return None if value <= MOST_WIDTH else f"at most {MOST_WIDTH}"


def _size(value) -> str | None:
    if not (isinstance(value, tuple) and len(value) == 2 and all(_positive(v, int) for v in value)):
        return "rows and columns, two positive whole numbers"
    if max(value) <= MOST_SIDE and value[0] * value[1] <= MOST_PIXELS:
        return None
    return f"at most {MOST_SIDE:,} pixels a side and {MOST_PIXELS:,} in all"


def _blocks(value) -> str | None:
    rows = isinstance(value, list | tuple) and value and all(isinstance(r, list | tuple) and len(r) == 4 for r in value)
    if not (rows and all(_positive(v, int) for row in value for v in row)):
        return "rows of four positive whole numbers (expanded channels, kernel, stride, channels)"
    if len(value) > MOST_BLOCKS:
        return f"at most {MOST_BLOCKS} rows"
    return next((problem for row in value for v in row if (problem := _whole(v))), None)


# option → what is wrong with a value of it, or None; options that are not here are positive whole numbers
CHECKS: dict[str, Callable] = {
    "size": _size,
    "width": _width,
    "variant": lambda v: None if v in VARIANTS else f"one of {', '.join(VARIANTS)}",
    "blocks": _blocks,
}


def build(name: str, **options: Any) -> Graph:
    """The model `name` of MODELS. All models have the options `classes`, `size`, `channels`; None is the default.

    Raises ModelError for an unknown name or option, and where the layers do not fit into the size.
    """
    if name not in MODELS:
        raise ModelError(f"there is no model {quoted(name)!r}{suggestion(name, MODELS)}")
    known = inspect.signature(MODELS[name]).parameters
    options = {k: v for k, v in options.items() if v is not None}
    for option, value in options.items():
        if option not in known:
            raise ModelError(f"the model {name} has no option {quoted(option)!r}{suggestion(option, known)}")
        problem = CHECKS.get(option, _whole)(value)
        if problem:
            raise ModelError(f"{option} of {name} must be {problem}, not {quoted(repr(value))}")
    try:
        return MODELS[name](**options)
    except ShapeError as e:
        size = options.get("size", known["size"].default)
        raise ModelError(f"{name} cannot take maps of {size[0]}x{size[1]}: {e}") from None
