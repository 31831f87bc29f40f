"""Conv: convolutions of maps, and of sequences as maps of one row.

W  (K, C/G, R, S)  →  w  (R, S, C/G, K)
"""

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
    bias = here.given(2)
    y = here.graph.conv2d(here.name, x, w.shape[0], kernel, stride, pad, dilation, here.attr("group", 1), bias)
    shape = w.shape if rank == 4 else (*w.shape[:2], 1, w.shape[2])
    here.store(f"{here.name}.w", 1, (2, 3, 1, 0), split=shape)
    if bias:
        here.store(f"{here.name}.b", 2, (0,))
    here.give_map(y, rank)
