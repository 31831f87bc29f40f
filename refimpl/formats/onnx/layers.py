"""Layers that several operators of ONNX stand for."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from .arithmetic import joint, widened
from .layout import packed, row_major
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


def of_rows(
    here: OnnxNode, place: int, transposed: bool, bias: tuple[Any, int] | None, alpha: float = 1.0, beta: float = 1.0
) -> None:  # fmt: skip
    """A linear layer along the last axis of tokens (N, …, T, D), as a convolution of 1×1, which trains as one does.

    place, transposed, bias, alpha, beta: as `linear` has them.
    """
    x, w = here.rows(0), here.constant(place, "weights")
    if w.ndim != 2 or w.shape[int(transposed)] != x.shape[-1]:
        raise Unsupported(f"it multiplies {x.shape} and weights of {w.shape}")
    channels = w.shape[1 - int(transposed)]
    own = x.own if len(x.own) == 3 else (1, math.prod(x.own) // x.shape[-1], x.shape[-1])
    tensor = here.walk.placed(x, ((math.prod(own), 1),), own)
    y = here.graph.conv2d(here.name, tensor, channels, 1, bias=bias is not None)
    here.store(f"{here.name}.w", place, (1, 0) if transposed else (0, 1), factor=alpha)
    if bias is not None:
        value = here.walk.values[bias[0].input[bias[1]]]
        if not isinstance(value, np.ndarray) or value.size != channels:
            raise Unsupported(f"its bias is no constant of {channels} numbers")
        here.store(f"{here.name}.b", bias[1], tuple(range(value.ndim)), node=bias[0], factor=beta)
    layout = tuple(tuple((n, step // own[2] * channels) for n, step in axis) for axis in x.layout[:-1])
    here.give_value(Value(y, (*own[:2], channels), (*layout, packed([(channels, 1)]))))


def of_stack(here: OnnxNode, place: int) -> None:
    """Products of a tensor and a stack of weights, input number `place`, as a convolution of 1×1 in groups.

    Weights (…, D, K) from the right, y = x w; (…, K, D) from the left, y = w x; a vector (D,) either way. The axes
    before are those of x, along which one of length 1 stands for all.
    """
    x, w = here.tensor(1 - place), here.constant(place, "weights")
    said = f"it multiplies {x.shape} and weights of {w.shape}" if place else (
        f"it multiplies weights of {w.shape} and {x.shape}"
    )  # fmt: skip
    rank, before = len(x.shape), w.shape[:-2]
    if rank < 3 or not w.ndim:
        raise Unsupported(f"{said}: a stack of weights, or weights from the left, take samples of two axes and more")
    x = x if place else turned(x)  # y = w x is yᵀ = xᵀ wᵀ
    deep, wide = (0, None) if w.ndim == 1 else (w.ndim - 2, w.ndim - 1) if place else (w.ndim - 1, w.ndim - 2)
    columns, whole = 1 if wide is None else w.shape[wide], max(rank, w.ndim)
    more = max(whole, w.ndim + 1 if x.shape[0] > 1 else 0) - rank  # what comes before samples, which is no other axis
    x = here.walk.split(x, (1,) * more + x.shape)
    lead = (1,) * (len(x.shape) - 2 - len(before)) + before
    if x.shape[-1] != w.shape[deep] or x.shape[more] == 1 < lead[more] or lead[0] > 1:
        raise Unsupported(f"{said}, which do not fit, or are others for each sample")
    rows, groups = ([i for i, n in enumerate(lead) if (n > 1) == stacked] for stacked in (False, True))
    spread = tuple(max(n, own) for n, own in zip(lead, x.shape[:-2], strict=True))
    several = any(x.shape[i] > 1 for i in groups)
    if several:
        x = widened(here, x, joint((x.shape, (*lead, 1, 1))))
    last, count = len(x.shape) - 1, math.prod(lead)
    order = (*rows, last - 1, *groups, last)
    length = math.prod(spread[i] for i in rows) * x.shape[-2]
    tensor = here.walk.laid(x, order[1:], (1, length, x.shape[-1] * (count if several else 1)))
    y = here.graph.conv2d(here.name, tensor, count * columns, 1, groups=count if several else 1, bias=False)
    ones, stack = ([i for i, n in enumerate(before) if (n > 1) == stacked] for stacked in (False, True))
    here.store(f"{here.name}.w", place, (*ones, deep, *stack, *([] if wide is None else [wide])))
    layout = here.walk.in_order((*x.layout[:-1], ()), row_major((*spread, x.shape[-2], columns)), order)
    made = Value(y, (1, length, count * columns), layout if wide is not None else layout[:-1])
    made = made if place or wide is None else turned(made)
    here.give_value(here.walk.split(made, made.shape[len(x.shape) - whole :]))


def turned(x: Value) -> Value:
    """A value with its last two axes in the other order."""
    return replace(x, layout=(*x.layout[:-2], x.layout[-1], x.layout[-2]))
