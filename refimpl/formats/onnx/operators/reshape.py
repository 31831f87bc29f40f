"""Flatten, Reshape, Squeeze and Unsqueeze: another shape of the same elements, which nothing of ours has to follow."""

import math

import numpy as np

from ..value import MAP, Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def convert(here: OnnxNode) -> None:
    """No node of ours, but for a channel_shuffle."""
    x = here.tensor(0)
    wanted = target(here, x.shape)
    if shuffled(here, x, wanted):
        return
    here.give_value(here.walk.split(x, wanted))


def shuffled(here: OnnxNode, x: Value, wanted: tuple[int, ...]) -> bool:
    """Is it the first of three nodes that deal the channels of groups out in turn? Then it is a channel_shuffle."""
    turned = here.only_consumer("Transpose")
    back = turned and here.only_consumer("Reshape", turned)
    if not back or len(wanted) != 5 or x.axes != MAP or (wanted[1] * wanted[2], *wanted[3:]) != x.shape[1:]:
        return False
    perm = next((tuple(a.ints) for a in turned.attribute if a.name == "perm"), ())
    end = here.walk.values.get(back.input[1])
    if perm != (0, 2, 1, 3, 4) or not isinstance(end, np.ndarray) or len(end) != 4 or end[1] not in (-1, x.shape[1]):
        return False
    here.like(here.graph.channel_shuffle(here.name, x.tensor, wanted[1]), x)
    for node in (turned, back):
        here.taken_with(node)
    return True


def target(here: OnnxNode, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a node makes, at a batch of one."""
    if here.op == "Flatten":
        axis = int(here.attr("axis", 1)) % (len(shape) + 1)
        return (math.prod(shape[:axis]), math.prod(shape[axis:]))
    if here.op == "Reshape":
        said = [int(n) for n in here.constant(1, "shape")]
        zero = bool(here.attr("allowzero", 0))
        found = [shape[i] if n == 0 and not zero else n for i, n in enumerate(said)]
        if -1 in found:
            rest = math.prod(n for n in found if n != -1) // (1 if found[0] < 1 else here.walk.batch)
            found[found.index(-1)] = math.prod(shape) // max(1, rest)
            if said[0] == -1:
                return tuple(found)
        batch = here.walk.batch if said[:1] != [0] else 1  # a file with a batch of its own says it here
        if found[:1] and found[0] % batch:
            raise Unsupported(f"it makes {said} of a batch of {batch}, which mixes samples")
        return (found[0] // batch, *found[1:]) if found else ()
    axes = here.attr("axes") if here.opset < 13 else here.constant(1, "axes")
    if here.op == "Squeeze":
        axes = range(1, len(shape)) if axes is None else axes
        gone = {int(a) % len(shape) for a in axes}
        return tuple(n for i, n in enumerate(shape) if i not in gone or n != 1)
    rank = len(shape) + len(axes)
    new, kept = {int(a) % rank for a in axes}, list(shape)
    return tuple(1 if i in new else kept.pop(0) for i in range(rank))
