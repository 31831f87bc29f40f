"""Parts of the channels of a map, or of features: a channel_slice each."""

import numpy as np

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Slice", "Split")
FAR = 2**31


def convert(here: OnnxNode) -> None:
    """A channel_slice for each part; none where a part is all."""
    x = here.tensor(0)
    if here.op == "Split":
        axis = int(here.attr("axis", 0)) % len(x.axes)
        parts = split(here, here.shape(x)[axis])
    else:
        axis, first, end = cut(here, here.shape(x))
        parts = [(first, end - first)]
    last = len(here.graph.shape(x.tensor)) - 1
    whole = here.shape(x)[axis]
    if x.mixed or x.axes[axis] != last and parts != [(0, whole)]:
        raise Unsupported(f"it cuts along axis {axis}, which is none of channels")
    for i, (start, count) in enumerate(parts):
        name = here.name if len(parts) == 1 else here.walk.unique(f"{here.name}.{i}")
        part = x.tensor if count == whole else here.graph.channel_slice(name, x.tensor, start, count)
        here.give(part, x.axes, output=i)


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


def cut(here: OnnxNode, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Axis, first index and end of a Slice along one axis."""
    names = ("starts", "ends", "axes", "steps")
    given = [here.attr(n) if here.opset < 10 else here.constant(i, n) for i, n in enumerate(names, start=1)]
    starts, ends = (np.asarray(a).reshape(-1) for a in given[:2])
    axes = range(len(starts)) if given[2] is None else [int(a) % len(shape) for a in np.asarray(given[2]).reshape(-1)]
    if given[3] is not None and any(int(n) != 1 for n in np.asarray(given[3]).reshape(-1)):
        raise Unsupported("it leaves elements out between those that it takes")
    found = [
        (axis, *slice(int(s), int(e)).indices(shape[axis])[:2]) for axis, s, e in zip(axes, starts, ends, strict=True)
    ]
    cutting = [f for f in found if f[1:] != (0, shape[f[0]])] or found[:1]
    if len(cutting) != 1 or cutting[0][0] == 0 or cutting[0][1] >= cutting[0][2]:
        raise Unsupported("it cuts along several axes, takes samples, or nothing")
    return cutting[0]
