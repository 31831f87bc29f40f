"""Layers that several operators of ONNX stand for."""

from typing import Any

import numpy as np

from .value import Unsupported
from .walk import OnnxNode


def linear(
    here: OnnxNode, place: int, transposed: bool, bias: tuple[Any, int] | None, alpha: float = 1.0, beta: float = 1.0
) -> None:  # fmt: skip
    """Add a linear layer whose weights are input number `place`: (K, D) where they are transposed, else (D, K).

    bias: the node that adds the bias, β times, and as which of its inputs; alpha: on the product.
    """
    x, w = here.features(0), here.constant(place, "weights")
    if w.ndim != 2:
        raise Unsupported(f"its weights have {w.ndim} axes, those of a linear layer have 2")
    depth = here.graph.shape(x.tensor)[1]
    features, own = (w.shape[0], w.shape[1]) if transposed else (w.shape[1], w.shape[0])
    if own != depth:
        raise Unsupported(f"its weights take {own} features, its input has {depth}")
    y = here.graph.linear(here.name, x.tensor, features, bias is not None)
    if x.mixed:  # (C, H, W) to our (H, W, C)
        split = (features, *x.mixed) if transposed else (*x.mixed, features)
        axes = (2, 3, 1, 0) if transposed else (1, 2, 0, 3)
        here.store(f"{here.name}.w", place, axes, split=split, factor=alpha)
    else:
        here.store(f"{here.name}.w", place, (1, 0) if transposed else (0, 1), factor=alpha)
    if bias is not None:
        value = here.walk.values[bias[0].input[bias[1]]]
        if not isinstance(value, np.ndarray) or value.size != features:
            raise Unsupported(f"its bias is no constant of {features} numbers")
        here.store(f"{here.name}.b", bias[1], tuple(range(value.ndim)), node=bias[0], factor=beta)
    here.give(y, (0, 1))
