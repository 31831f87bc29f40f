"""Conv: convolutions of maps, and of sequences as maps of one row; with the bias that a following Add brings.

W  (K, C/G, R, S)  →  w  (R, S, C/G, K)
"""

from typing import Any

import numpy as np

from ..value import Unsupported
from ..walk import OnnxNode
from ..windows import pad_of, two

OPERATORS = ("Conv",)


def convert(here: OnnxNode) -> None:
    """A conv2d."""
    x = here.map(0)
    w, rank = here.constant(1, "weights"), len(here.padded(0).axes)
    if w.ndim != rank:
        raise Unsupported(f"its weights have {w.ndim} axes, its input has {rank}")
    kernel = two(w.shape[2:], 1)
    stride, dilation = (
        two(here.attr("strides", (1,) * (rank - 2)), 1),
        two(here.attr("dilations", (1,) * (rank - 2)), 1),
    )
    size = [n + sum(own) for n, own in zip(here.graph.shape(x)[1:3], here.padded(0).pad, strict=True)]
    pad = pad_of(here, size, kernel, stride, dilation)
    (top, bottom), (left, right) = here.padded(0).pad
    pad = ((pad[0][0] + top, pad[0][1] + bottom), (pad[1][0] + left, pad[1][1] + right))
    bias = (here.node, 2) if here.given(2) else added(here, w.shape[0], rank)
    y = here.graph.conv2d(
        here.name, x, w.shape[0], kernel, stride, pad, dilation, here.attr("group", 1), bias is not None
    )
    shape = w.shape if rank == 4 else (*w.shape[:2], 1, w.shape[2])
    here.store(f"{here.name}.w", 1, (2, 3, 1, 0), split=shape)
    if bias is not None:
        node, place = bias
        value = here.walk.values[node.input[place]]
        axes = tuple(range(value.ndim)) if isinstance(value, np.ndarray) else (0,)
        here.store(f"{here.name}.b", place, axes, node=node)
    here.give_map(y, rank)
    if bias is not None and bias[0] is not here.node:
        here.taken_with(bias[0])


def added(here: OnnxNode, channels: int, rank: int) -> tuple[Any, int] | None:
    """The only node that reads it, where that adds a number to each channel, and as which input."""
    add = here.only_consumer("Add")
    for place, name in enumerate(add.input if add else ()):
        constant = here.walk.values.get(name)
        if isinstance(constant, np.ndarray) and constant.ndim in (rank - 1, rank):
            if constant.shape[1 - rank :] == (channels, *(1,) * (rank - 2)) and constant.size == channels:
                return add, place
    return None
