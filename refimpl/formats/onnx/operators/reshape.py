"""Flatten, Reshape, Squeeze and Unsqueeze where samples keep their order: to features, or by axes of length 1."""

import math

import numpy as np

from ..value import MAP, ROW, Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def convert(here: OnnxNode) -> None:
    """A flatten, or no node."""
    x = here.tensor(0)
    shape = here.shape(x)
    wanted = target(here, shape)
    if [n for n in wanted if n != 1] == [n for n in shape if n != 1] and wanted[:1] == (1,):
        here.give(x.tensor, axes_of(x, shape, wanted), x.mixed)
        return
    if shuffled(here, x, shape, wanted):
        return
    if len(wanted) != 2 or wanted != (1, math.prod(shape)):
        raise Unsupported(f"it makes {wanted} of {shape}, which mixes axes")
    if x.axes not in (MAP, ROW):
        raise Unsupported(f"it flattens what is arranged as {x.axes}")
    own = here.graph.shape(x.tensor)
    one = own[3] == 1 or own[1:3] == (1, 1)  # both orders are the same
    here.give(here.graph.flatten(here.name, x.tensor), (0, 1), None if one else (own[3], own[1], own[2]))


def shuffled(here: OnnxNode, x: Value, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Is it the first of three nodes that deal the channels of groups out in turn? Then it is a channel_shuffle."""
    turned = here.only_consumer("Transpose")
    back = turned and here.only_consumer("Reshape", turned)
    if not back or len(wanted) != 5 or x.axes != MAP or (wanted[1] * wanted[2], *wanted[3:]) != shape[1:]:
        return False
    perm = next((tuple(a.ints) for a in turned.attribute if a.name == "perm"), ())
    end = here.walk.values.get(back.input[1])
    if perm != (0, 2, 1, 3, 4) or not isinstance(end, np.ndarray) or len(end) != 4 or end[1] not in (-1, shape[1]):
        return False
    here.give(here.graph.channel_shuffle(here.name, x.tensor, wanted[1]), x.axes)
    for node in (turned, back):
        here.taken_with(node)
    return True


def target(here: OnnxNode, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a node makes, at a batch of one."""
    if here.op == "Flatten":
        axis = int(here.attr("axis", 1)) % (len(shape) + 1)
        if axis != 1:
            raise Unsupported(f"it flattens from axis {axis}, samples are along axis 0")
        return (shape[0], math.prod(shape[1:]))
    if here.op == "Reshape":
        said = [int(n) for n in here.constant(1, "shape")]
        zero = bool(here.attr("allowzero", 0))
        found = [shape[i] if n == 0 and not zero else n for i, n in enumerate(said)]
        if -1 in found:
            rest = math.prod(n for n in found if n != -1)
            found[found.index(-1)] = math.prod(shape) // rest
        return tuple(found)
    axes = here.attr("axes") if here.opset < 13 else here.constant(1, "axes")
    if here.op == "Squeeze":
        axes = range(1, len(shape)) if axes is None else axes
        gone = {int(a) % len(shape) for a in axes}
        return tuple(n for i, n in enumerate(shape) if i not in gone or n != 1)
    rank = len(shape) + len(axes)
    new, kept = {int(a) % rank for a in axes}, list(shape)
    return tuple(1 if i in new else kept.pop(0) for i in range(rank))


def axes_of(x: Value, shape: tuple[int, ...], wanted: tuple[int, ...]) -> list[int | None]:
    """The axes of a value after axes of length 1 have come or gone; ours of length 1 that are named stay, unnamed."""
    long = [axis for axis, n in zip(x.axes, shape, strict=True) if n != 1]
    found: list[int | None] = [0]
    for n in wanted[1:]:
        found.append(long.pop(0) if n != 1 else None)
    return found
