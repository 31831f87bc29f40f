"""Concat along any axis: a concat of our last axis, or of what lies behind the axis; an attach of a constant."""

import math

import numpy as np

from ..layout import SAMPLES, of_axes, row_major
from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("Concat",)


def convert(here: OnnxNode) -> None:
    """A concat, where our tensors are arranged alike, and else of the elements in ONNX's order."""
    inputs = [here.value(i) for i in range(len(here))]
    values = [here.tensor(i) for i, v in enumerate(inputs) if isinstance(v, Value)]
    first = values[0]
    axis = int(here.attr("axis")) % len(first.layout)
    if any([*v.shape[:axis], *v.shape[axis + 1 :]] != [*first.shape[:axis], *first.shape[axis + 1 :]] for v in inputs):
        shapes = ", ".join(str(tuple(v.shape)) for v in inputs)
        raise Unsupported(f"it joins shapes {shapes} along axis {axis}")
    if SAMPLES in first.layout[axis]:
        raise Unsupported("it joins samples")
    if len(values) == len(inputs):
        here.give_value(joined(here, values, axis))
    else:
        here.give_value(in_order(here, inputs, axis))


def joined(here: OnnxNode, values: list[Value], axis: int) -> Value:
    """Tensors side by side along an axis."""
    at = values[0].axes[axis]
    if isinstance(at, int) and at and all(v.axes == values[0].axes for v in values):
        return alike(here, values, at)
    return in_order(here, [*values], axis)


def alike(here: OnnxNode, values: list[Value], at: int) -> Value:
    """The same along axis `at` of our tensors."""
    graph, own, axes = here.graph, values[0].own, values[0].axes
    if at == len(own):
        own = (*own[:-1], sum(v.own[-1] for v in values))
        return Value(graph.concat(here.free, *(v.tensor for v in values)), own, of_axes(axes, own))
    before = math.prod(own[: at - 1])
    rows = [here.walk.placed(v, ((math.prod(v.own), 1),), (before, 1, math.prod(v.own) // before)) for v in values]
    tensor = graph.concat(here.free, *rows)
    own = (*own[: at - 1], sum(v.own[at - 1] for v in values), *own[at:])
    tensor = graph.reshape(here.walk.unique(f"{here.name}.map"), tensor, (own[0], own[1]))
    return Value(tensor, own, of_axes(axes, own))


def in_order(here: OnnxNode, inputs: list[Value | np.ndarray], axis: int) -> Value:
    """Join the elements in ONNX's order."""
    graph, shape = here.graph, list(inputs[0].shape)
    before, behind = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    made, front = "", list[tuple[int, np.ndarray]]()  # constants that come before the first tensor
    for i, value in enumerate(inputs):
        width = value.shape[axis] * behind
        if isinstance(value, Value):
            own = here.walk.laid(value, range(1, len(shape)), (before, 1, width))
            for place, constant in reversed(front):
                own = attached(here, own, place, constant, before, after=False)
            front = []
            made = own if not made else graph.concat(here.walk.unique(here.name), made, own)
        elif made:
            made = attached(here, made, i, value, before, after=True)
        else:
            front.append((i, value))
    shape[axis] = sum(v.shape[axis] for v in inputs)
    wide = (before, 1, shape[axis] * behind)
    samples = next(v for v in inputs if isinstance(v, Value)).layout
    return Value(made, wide, here.walk.in_order(samples, row_major(shape)))


def attached(here: OnnxNode, x: str, place: int, constant: np.ndarray, before: int, after: bool) -> str:
    """A constant beside our tensor (N, before, 1, …), as a parameter."""
    name = here.walk.unique(f"{here.name}.w")
    y = here.graph.attach(name, x, constant.size // before, after)
    here.store(f"{name}.w", place, tuple(range(constant.ndim)))
    return y
