"""Conv: convolutions of maps, and of sequences as maps of one row.

W  (K, C/G, R, S)  →  w  (R, S, C/G, K)
"""

from ..value import MAP, ROW, Unsupported
from ..walk import Step
from ..windows import pad_of, two

OPERATORS = ("Conv",)


def convert(step: Step) -> None:
    """A conv2d."""
    x = step.map(0)
    w, rank = step.constant(1, "weights"), len(step.padded(0).axes)
    if w.ndim != rank:
        raise Unsupported(f"its weights have {w.ndim} axes, its input has {rank}")
    kernel = two(w.shape[2:], 1)
    stride, dilation = (
        two(step.attr("strides", (1,) * (rank - 2)), 1),
        two(step.attr("dilations", (1,) * (rank - 2)), 1),
    )
    size = [n + sum(own) for n, own in zip(step.graph.shape(x)[1:3], step.padded(0).pad, strict=True)]
    pad = pad_of(step, size, kernel, stride, dilation)
    (top, bottom), (left, right) = step.padded(0).pad
    pad = ((pad[0][0] + top, pad[0][1] + bottom), (pad[1][0] + left, pad[1][1] + right))
    bias = step.given(2)
    y = step.graph.conv2d(step.name, x, w.shape[0], kernel, stride, pad, dilation, step.attr("group", 1), bias)
    shape = w.shape if rank == 4 else (*w.shape[:2], 1, w.shape[2])
    step.store(f"{step.name}.w", 1, (2, 3, 1, 0), split=shape)
    if bias:
        step.store(f"{step.name}.b", 2, (0,))
    step.give(y, MAP if rank == 4 else ROW)
