"""Layers that several operators of ONNX stand for."""

import math
from typing import Any

import numpy as np

from .layout import packed
from .value import Unsupported, Value
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
    digits = x.layout[1]
    if len(digits) > 1:  # (C, H, W) to our (H, W, C): features in our order
        lengths = tuple(length for length, _ in digits)
        ours = sorted(range(len(digits)), key=lambda i: -digits[i][1])
        split = (features, *lengths) if transposed else (*lengths, features)
        axes = (*(i + 1 for i in ours), 0) if transposed else (*ours, len(digits))
        here.store(f"{here.name}.w", place, axes, split=split, factor=alpha)
    else:
        here.store(f"{here.name}.w", place, (1, 0) if transposed else (0, 1), factor=alpha)
    if bias is not None:
        value = here.walk.values[bias[0].input[bias[1]]]
        if not isinstance(value, np.ndarray) or value.size != features:
            raise Unsupported(f"its bias is no constant of {features} numbers")
        here.store(f"{here.name}.b", bias[1], tuple(range(value.ndim)), node=bias[0], factor=beta)
    here.give(y, (0, 1))


def of_rows(here: OnnxNode, place: int, transposed: bool, bias: tuple[Any, int] | None) -> None:
    """A linear layer along the last axis of tokens (N, …, T, D), as a convolution of 1×1, which trains as one does."""
    x, w = here.rows(0), here.constant(place, "weights")
    if w.ndim != 2 or w.shape[int(transposed)] != x.shape[-1]:
        raise Unsupported(f"it multiplies {x.shape} and weights of {w.shape}")
    channels = w.shape[1 - int(transposed)]
    own = x.own if len(x.own) == 3 else (1, math.prod(x.own) // x.shape[-1], x.shape[-1])
    tensor = here.walk.placed(x, ((math.prod(own), 1),), own)
    y = here.graph.conv2d(here.name, tensor, channels, 1, bias=bias is not None)
    here.store(f"{here.name}.w", place, (1, 0) if transposed else (0, 1))
    if bias is not None:
        here.store(f"{here.name}.b", bias[1], (0,), node=bias[0])
    layout = tuple(tuple((n, step // own[2] * channels) for n, step in axis) for axis in x.layout[:-1])
    here.give_value(Value(y, (*own[:2], channels), (*layout, packed([(channels, 1)]))))
