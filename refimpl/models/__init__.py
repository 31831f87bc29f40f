"""Models, one family a file: short functions that build a Graph. `build` makes one by the name of the command line."""

import difflib
import inspect
import math
from collections.abc import Callable

from ..graph import Graph
from ..passes import ShapeError
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
}


class ModelError(ValueError):
    """No such model, or it cannot be built with these options; the message says what would be right."""


def suggestion(name: str, known) -> str:
    """`; did you mean 'x'?` for the nearest of the known names, or their list where none is near."""
    near = difflib.get_close_matches(str(name), known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def _positive(value, types) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and 0 < value < math.inf


def _whole(value) -> str | None:
    return None if _positive(value, int) else "a positive whole number"


def _size(value) -> str | None:
    pair = isinstance(value, tuple) and len(value) == 2
    return None if pair and all(_positive(v, int) for v in value) else "rows and columns, two positive whole numbers"


def _blocks(value) -> str | None:
    rows = isinstance(value, list | tuple) and value and all(isinstance(r, list | tuple) and len(r) == 4 for r in value)
    if rows and all(_positive(v, int) for row in value for v in row):
        return None
    return "rows of four positive whole numbers (expanded channels, kernel, stride, channels)"


# option → what is wrong with a value of it, or None; options that are not here are positive whole numbers
CHECKS: dict[str, Callable] = {
    "size": _size,
    "width": lambda value: None if _positive(value, (int, float)) else "a positive number",
    "variant": lambda value: None if value in VARIANTS else f"one of {', '.join(VARIANTS)}",
    "blocks": _blocks,
}


def build(name: str, **options) -> Graph:
    """The model `name` of MODELS. All models have the options `classes`, `size`, `channels`; None is the default.

    Raises ModelError for an unknown name or option, and where the layers do not fit into the size.
    """
    if name not in MODELS:
        raise ModelError(f"there is no model {name!r}{suggestion(name, MODELS)}")
    known = inspect.signature(MODELS[name]).parameters
    options = {k: v for k, v in options.items() if v is not None}
    for option, value in options.items():
        if option not in known:
            raise ModelError(f"the model {name} has no option {option!r}{suggestion(option, known)}")
        problem = CHECKS.get(option, _whole)(value)
        if problem:
            raise ModelError(f"{option} of {name} must be {problem}, not {value!r}")
    try:
        return MODELS[name](**options)
    except ShapeError as e:
        size = options.get("size", known["size"].default)
        raise ModelError(f"{name} cannot take maps of {size[0]}x{size[1]}: {e}") from None
