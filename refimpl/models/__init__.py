"""Models, one family a file: short functions that build a Graph. `build` makes one by the name of the command line."""

import difflib
import inspect
import math
from collections.abc import Callable

from ..graph import Graph
from ..passes import ShapeError
from .lenet import lenet, lenet5, slim_lenet
from .mobilenet_v2 import mobilenet_v2
from .resnet import resnet8, resnet10, resnet18
from .watch import watch_net, watch_weights

__all__ = [
    "MODELS",
    "ModelError",
    "build",
    "lenet",
    "lenet5",
    "mobilenet_v2",
    "resnet8",
    "resnet10",
    "resnet18",
    "slim_lenet",
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
    "mobilenet_v2": mobilenet_v2,
}


class ModelError(ValueError):
    """No such model, or it cannot be built with these options; the message says what would be right."""


def suggestion(name: str, known) -> str:
    """`; did you mean 'x'?` for the nearest of the known names, or their list where none is near."""
    near = difflib.get_close_matches(str(name), known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"


def build(name: str, **options) -> Graph:
    """The model `name` of MODELS. Options (`classes`, `size`, `channels`, `width`) that are None take their default.

    Raises ModelError for an unknown name or option, and where the layers do not fit into the size.
    """
    if name not in MODELS:
        raise ModelError(f"there is no model {name!r}{suggestion(name, MODELS)}")
    known = inspect.signature(MODELS[name]).parameters
    options = {k: v for k, v in options.items() if v is not None}
    for option, value in options.items():
        if option not in known:
            raise ModelError(f"the model {name} has no option {option!r}{suggestion(option, known)}")
        values = value if isinstance(value, tuple) else (value,)
        if option == "size" and len(values) != 2:
            raise ModelError(f"the size of {name} must be rows and columns, (H, W), not {value!r}")
        whole = option != "width"
        types = int if whole else (int, float)
        if not all(isinstance(v, types) and not isinstance(v, bool) and 0 < v < math.inf for v in values):
            kind = "a positive whole number" if whole else "a positive number"
            raise ModelError(f"{option} of {name} must be {kind}, not {value!r}")
    try:
        return MODELS[name](**options)
    except ShapeError as e:
        size = options.get("size", known["size"].default)
        raise ModelError(f"{name} cannot take maps of {size[0]}x{size[1]}: {e}") from None
