"""Sums, differences, products and quotients: of a tensor and a constant, of two tensors.

A constant of one number is an attribute, an array of them weights, which train as those of norms do and are written
back where the file has them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .value import MAP, ROW, Unsupported, Value
from .walk import OnnxNode


@dataclass(frozen=True)
class WithConstant:
    """A node of two inputs of which one is a constant. x: the other; place: which input the constant is, 0 or 1."""

    x: Value
    array: np.ndarray
    place: int

    @property
    def number(self) -> float | None:
        """The one number that it is; None where it has several."""
        return float(self.array.reshape(-1)[0]) if self.array.size == 1 else None


def beside(here: OnnxNode) -> WithConstant | None:
    """The constant of a node of two inputs; None where both depend on the input of the graph."""
    for place in (0, 1):
        if not isinstance(here.value(place), Value):
            x, array = here.tensor(1 - place), here.constant(place, "constant")
            if array.size == 0 or array.ndim > len(x.axes) and set(array.shape[: array.ndim - len(x.axes)]) != {1}:
                raise Unsupported(f"its constant has the shape {array.shape}, its input {here.shape(x)}")
            return WithConstant(x, array, place)
    return None


def line(here: OnnxNode, x: Value, factor: float, offset: float) -> None:
    """Give factor·x + offset; x itself where it is that."""
    if (factor, offset) == (1.0, 0.0):
        here.give(x.tensor, x.axes, x.mixed)
        return
    if not (math.isfinite(factor) and math.isfinite(offset)):
        raise Unsupported(f"it takes {factor} times its input, and adds {offset}")
    here.give(here.graph.affine(here.name, x.tensor, factor, offset), x.axes, x.mixed)


def weights(
    here: OnnxNode, found: WithConstant, x: Value, make: Callable[[str, str, Sequence[int]], str], factor: float = 1.0,
    inverse: bool = False,
) -> None:  # fmt: skip
    """Give what `make`, a method of Graph such as `add_weight`, makes of x and the array beside it as its weights.

    x: a tensor with the axes of `found.x`. factor, inverse: the weights are so many times the array, or its inverse.
    """
    shape, order, split = placed(here, found)
    own = here.graph.shape(x.tensor)
    tensor = x.tensor if len(own) > 2 else here.walk.once(x.tensor, "map", lambda n: here.graph.as_map(n, x.tensor))
    y = make(here.name, tensor, shape if len(own) > 2 else (1, 1, *shape))
    here.store(f"{here.name}.w", found.place, order, split=split, factor=factor, inverse=inverse)
    if len(own) == 2:
        y = here.graph.flatten(here.walk.unique(f"{here.name}.features"), y)
    here.give(y, x.axes, x.mixed)


def placed(here: OnnxNode, found: WithConstant) -> tuple[list[int], tuple[int, ...], tuple[int, ...]]:
    """Shape of the weights as ours, one number an axis of a sample, the order of the constant's axes, and its split."""
    x, array = found.x, found.array
    if x.mixed:  # features (C, H, W) of ours in the order (H, W, C)
        if array.size != math.prod(x.mixed):
            raise Unsupported(f"its constant has the shape {array.shape}, its input {here.shape(x)}")
        return [array.size], (1, 2, 0), x.mixed
    lead = len(x.axes) - array.ndim
    places: dict[int, int] = {}  # our axis → the constant's
    rest = []
    for axis, length in enumerate(array.shape):
        own = x.axes[lead + axis] if lead + axis >= 0 else None
        if own in (None, 0) and length > 1 or own and length not in (1, here.graph.shape(x.tensor)[own]):
            raise Unsupported(f"its constant has the shape {array.shape}, its input {here.shape(x)}")
        if own:
            places[own] = axis
        else:
            rest.append(axis)
    sample = range(1, len(here.graph.shape(x.tensor)))
    shape = [array.shape[places[own]] if own in places else 1 for own in sample]
    return shape, (*rest, *(places[own] for own in sorted(places))), ()


def spread(here: OnnxNode) -> tuple[Value, str, str] | None:
    """Of two tensors: what the wider one stands for, and both of ours, of which the other has axes of length 1.

    None where both have one shape. Unsupported where each is wider than the other along some axis.
    """
    values = here.tensor(0), here.tensor(1)
    shapes = [here.shape(v) for v in values]
    if shapes[0] == shapes[1]:
        return None
    wide = tuple(max(sides) for sides in zip(*shapes, strict=True)) if len(shapes[0]) == len(shapes[1]) else ()
    if wide not in shapes:
        raise Unsupported(f"it takes shapes {shapes[0]} and {shapes[1]}, of which neither is spread along the other")
    x = values[shapes.index(wide)]
    if values[0].axes == values[1].axes and not (values[0].mixed or values[1].mixed):
        own = [v.tensor for v in values]
    elif x.axes in (MAP, ROW):
        own = [here.map(0), here.map(1)]
    else:
        raise Unsupported("its inputs are arranged in two ways")
    first = shapes.index(wide)
    return x, own[first], own[1 - first]


def pair(here: OnnxNode) -> tuple[Value, str, str]:
    """Two tensors of one shape: what they stand for, and both of ours. Unsupported in two arrangements."""
    a, b = here.tensor(0), here.tensor(1)
    if (a.axes, a.mixed) == (b.axes, b.mixed):
        return a, a.tensor, b.tensor
    if len(a.axes) in (3, 4) and not (a.mixed or b.mixed):
        first, second = here.map(0), here.map(1)
        return Value(first, MAP if len(a.axes) == 4 else ROW), first, second
    raise Unsupported("its inputs are arranged in two ways")
