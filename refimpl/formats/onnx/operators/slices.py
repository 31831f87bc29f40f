"""Slice, Split and Gather: parts of an axis. A channel_slice each: of our channels, or of what lies behind an axis."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..layout import SAMPLES, packed, row_major
from ..value import Unsupported, Value
from ..walk import OnnxNode
from .concat import joined

OPERATORS = ("Slice", "Split", "Gather")
MOST_RUNS = 64  # of elements that follow each other, of one axis


def convert(here: OnnxNode) -> None:
    """A channel_slice for each part of each axis; none where a part is all."""
    x = here.tensor(0)
    if here.op == "Split":
        axis = int(here.attr("axis", 0)) % len(x.layout)
        for i, (start, count) in enumerate(split(here, x.shape[axis])):
            here.give_value(part(here, x, axis, start, count), output=i)
    elif here.op == "Gather":
        here.give_value(gathered(here, x))
    else:
        for axis, start, count, step in cuts(here, x.shape):
            x = every(here, x, axis, start, count, step)
        here.give_value(x)


def part(here: OnnxNode, x: Value, axis: int, start: int, count: int) -> Value:
    """`count` elements of an axis from `start` on."""
    whole, digits = x.shape[axis], packed(x.layout[axis])
    if count == whole:
        return x
    if count < 1 or not digits or digits[0][1] == 0:
        raise Unsupported(f"it takes nothing, or samples, along axis {axis} of {x.shape}")
    (length, step), rest = digits[0], whole // digits[0][0]  # of several digits the slowest is cut
    if start % rest or count % rest:
        raise Unsupported(f"it cuts {start} to {start + count} of an axis that is arranged as {digits}")
    start, count = start // rest, count // rest
    name = here.walk.unique(here.name)
    if step == 1 and x.own[-1] == length:
        tensor, own = here.graph.channel_slice(name, x.tensor, start, count), (*x.own[:-1], count)
    else:
        before = math.prod(x.own) // (length * step)
        rows = here.walk.placed(x, ((math.prod(x.own), 1),), (before, 1, length * step))
        tensor, own = here.graph.channel_slice(name, rows, start * step, count * step), (before, 1, count * step)
    layout = tuple(tuple((n, s if s < length * step else s // length * count) for n, s in a) for a in x.layout)
    cut = packed([(count, step), *layout[axis][1:]])
    return Value(tensor, own, (*layout[:axis], cut, *layout[axis + 1 :]))


def every(here: OnnxNode, x: Value, axis: int, start: int, count: int, step: int) -> Value:
    """`count` elements of an axis from `start` on, of every `step` one."""
    if step == 1:
        return part(here, x, axis, start, count)
    if step < 1:
        return picked(here, x, axis, list(range(start, start + count * step, step)))
    whole, shape = x.shape[axis], x.shape
    if whole % step or start >= step or count != whole // step:  # as a pool of windows of one element does
        x = part(here, x, axis, start, whole - start)
        flags = [i == axis for i in range(len(shape))]
        x, along = here.walk.grouped(x, flags)
        if SAMPLES in x.layout[axis] or True not in along:
            raise Unsupported(f"it takes every {step} of {whole} elements along axis {axis} of {shape}")
        at = along.index(True)
        if at == 2:
            x = here.walk.pixels(x)
            at = 1
        strides = (step, 1) if at == 0 else (1, step)
        y = here.graph.max_pool(here.walk.unique(here.name), x.tensor, 1, strides)
        cut = (*shape[:axis], -(-(whole - start) // step), *shape[axis + 1 :])
        return Value(y, here.graph.shape(y)[1:], here.walk.in_order(x.layout, row_major(cut)))
    x = here.walk.split(x, (*shape[:axis], count, step, *shape[axis + 1 :]))
    x = part(here, x, axis + 1, start, 1)
    return replace(x, layout=(*x.layout[: axis + 1], *x.layout[axis + 2 :]))


def gathered(here: OnnxNode, x: Value) -> Value:
    """One index, whose axis goes, or indices of any shape."""
    axis = int(here.attr("axis", 0)) % len(x.layout)
    indices = np.asarray(here.constant(1, "indices"))
    x = picked(here, x, axis, [int(i) % x.shape[axis] for i in indices.reshape(-1)])
    if not indices.ndim:
        return replace(x, layout=without(x.layout, axis))
    return here.walk.split(x, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def picked(here: OnnxNode, x: Value, axis: int, places: list[int]) -> Value:
    """These elements of an axis: a part for each run of them that follow each other, side by side."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and place == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((place, 1))
    if len(runs) > 1 and SAMPLES in x.layout[axis]:
        raise Unsupported("it takes some of the samples, or puts them in another order")
    if not 0 < len(runs) <= MOST_RUNS:
        raise Unsupported(f"it takes {len(runs)} runs of elements along axis {axis}, 1 to {MOST_RUNS} are read")
    parts = [part(here, x, axis, start, count) for start, count in runs]
    return parts[0] if len(parts) == 1 else joined(here, parts, axis)


def without(layout: tuple, axis: int) -> tuple:
    """A layout without an axis of length 1; where samples stand in it they go to the next one."""
    left = [*layout[:axis], *layout[axis + 1 :]]
    if layout[axis] and left:
        at = min(axis, len(left) - 1)
        left[at] = (*layout[axis], *left[at])
    return tuple(left)


def split(here: OnnxNode, whole: int) -> list[tuple[int, int]]:
    """(start, count) of each part."""
    given = here.attr("split") if here.opset < 13 else here.constant(1, "lengths")
    outputs = len(here.node.output)
    if given is None:
        each = -(-whole // outputs)
        given = [min(each, whole - i * each) for i in range(outputs)]
    counts = [int(n) for n in given]
    if sum(counts) != whole or min(counts) < 1:
        raise Unsupported(f"its parts {counts} are not those of {whole}")
    return [(sum(counts[:i]), n) for i, n in enumerate(counts)]


def cuts(here: OnnxNode, shape: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Axis, first index, count and step of each axis that a Slice cuts."""
    names = ("starts", "ends", "axes", "steps")
    given = [here.attr(n) if here.opset < 10 else here.constant(i, n) for i, n in enumerate(names, start=1)]
    starts, ends = (np.asarray(a).reshape(-1) for a in given[:2])
    axes = range(len(starts)) if given[2] is None else [int(a) % len(shape) for a in np.asarray(given[2]).reshape(-1)]
    steps = [1] * len(starts) if given[3] is None else [int(n) for n in np.asarray(given[3]).reshape(-1)]
    found = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if axis == 0 and 0 <= end < here.walk.batch:
            raise Unsupported("it takes some of the samples")
        taken = range(*slice(int(start), int(end), step).indices(shape[axis]))
        if len(taken) != shape[axis] or step < 0:
            found.append((axis, taken.start, len(taken), step))
    return found
