"""Sums, differences, products and quotients: of a tensor and a constant, of two tensors.

A constant of one number is an attribute, an array of them weights, which train as those of norms do and are written
back where the file has them.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .layout import row_major
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
        here.like(x.tensor, x)
        return
    if not (math.isfinite(factor) and math.isfinite(offset)):
        raise Unsupported(f"it takes {factor} times its input, and adds {offset}")
    here.like(here.graph.affine(here.name, x.tensor, factor, offset), x)


def weights(
    here: OnnxNode, found: WithConstant, x: Value, make: Callable[[str, str, Sequence[int]], str], factor: float = 1.0,
    inverse: bool = False,
) -> None:  # fmt: skip
    """Give what `make`, a method of Graph such as `add_weight`, makes of x and the array beside it as its weights.

    x: a tensor with the axes of `found.x`, which is spread where the array is wider. factor, inverse: the weights are
    so many times the array, or its inverse.
    """
    array = found.array
    if array.ndim <= len(x.shape):  # an array may be wider than the tensor too
        x = widened(here, x, joint((x.shape, array.shape)))
    sides = (1,) * (len(x.shape) - array.ndim) + array.shape[max(0, array.ndim - len(x.shape)) :]
    if any(n not in (1, whole) for n, whole in zip(sides, x.shape, strict=True)):
        raise Unsupported(f"its constant has the shape {array.shape}, its input {x.shape}")
    axes = x.axes
    if len(x.own) == 3 and all(isinstance(a, int) for a, n in zip(axes, sides, strict=True) if n > 1) and sides[0] == 1:
        places = {axis: i for i, axis in enumerate(axes) if isinstance(axis, int) and axis and sides[i] > 1}
        shape = [sides[places[own]] if own in places else 1 for own in (1, 2, 3)]
        order = [i - len(sides) + array.ndim for _, i in sorted(places.items())]
        order = [*(i for i in range(array.ndim) if i not in order), *order]
    else:
        x, full = here.walk.grouped(x, [n > 1 for n in sides])
        shape, order = [n if whole else 1 for n, whole in zip(x.own, full, strict=True)], list(range(array.ndim))
    y = make(here.name, x.tensor, shape)
    here.store(f"{here.name}.w", found.place, order, factor=factor, inverse=inverse)
    here.like(y, x)


def joint(shapes: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The shape that all of these are spread to; Unsupported where they do not fit together."""
    shapes = list(map(tuple, shapes))
    try:
        return tuple(int(n) for n in np.broadcast_shapes(*shapes))
    except ValueError:
        raise Unsupported(f"it takes shapes {' and '.join(map(str, shapes))}, which do not fit together") from None


def widened(here: OnnxNode, x: Value, wide: tuple[int, ...]) -> Value:
    """A value spread to this shape along its axes of length 1; itself where it has it."""
    x = here.walk.split(x, (1,) * (len(wide) - len(x.shape)) + x.shape)
    if x.shape == wide:
        return x
    if wide[0] != 1:
        raise Unsupported(f"it spreads samples, {x.shape} to {wide}")
    groups: list[list[int]] = []  # neighbours that are spread alike: how many elements before, and behind
    for own, whole in zip(x.shape, wide, strict=True):
        if groups and (whole == 1 or (own == whole) == (groups[-1][0] == groups[-1][1])):
            groups[-1] = [groups[-1][0] * own, groups[-1][1] * whole]
        elif whole > 1:
            groups.append([own, whole])
    if len(groups) > 3:
        raise Unsupported(f"it spreads {x.shape} to {wide}, a tensor of {len(groups)} axes, three are run")
    groups = [[1, 1]] * (3 - len(groups)) + groups
    before, behind = (tuple(sides) for sides in zip(*groups, strict=True))
    tensor = here.walk.laid(x, range(1, len(wide)), before)
    y = here.graph.spread_out(here.walk.unique(f"{here.name}.wide"), tensor, behind)
    return Value(y, behind, here.walk.in_order(x.layout, row_major(wide)))


def spread(here: OnnxNode) -> tuple[Value, str, str, int] | None:
    """Of two tensors: the wider one, both of ours, of which the other has axes of length 1, and which is the wider.

    None where both have one shape. Where each is wider than the other along some axis, the first is spread before.
    """
    values = [here.tensor(0), here.tensor(1)]
    if values[0].shape == values[1].shape:
        return None
    wide = joint(v.shape for v in values)
    values = [here.walk.split(v, (1,) * (len(wide) - len(v.shape)) + v.shape) for v in values]
    first = next((i for i, v in enumerate(values) if v.shape == wide), None)
    if first is None:  # each is wider than the other along some axis
        first, values[0] = 0, widened(here, values[0], wide)
    x, other = values[first], values[1 - first]
    if x.axes in (MAP, ROW) and x.layout[0] == other.layout[0]:
        return x, x.tensor, here.walk.map(other), first
    flags = [n > 1 for n in other.shape]
    x, full = here.walk.grouped(x, flags)
    own = tuple(n if whole else 1 for n, whole in zip(x.own, full, strict=True))
    return x, x.tensor, here.walk.laid(other, range(1, len(wide)), own), first
