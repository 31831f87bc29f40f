"""Zeros around a map before a convolution, which then has them as its own padding."""

import numpy as np

from ..value import MAP, ROW, Unsupported
from ..walk import OnnxNode

OPERATORS = ("Pad",)


def convert(here: OnnxNode) -> None:
    """No node of ours, but for the convolution's."""
    x = here.tensor(0)
    rank = len(x.axes)
    pads = here.attr("pads") if here.opset < 11 else here.constant(1, "pads").tolist()
    axes = here.constant(3, "axes", np.arange(rank)).tolist()
    value = here.attr("value", 0.0) if here.opset < 11 else float(np.sum(here.constant(2, "value", 0.0)))
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[i]), int(pads[i + len(axes)])
    if not any(before + after):
        here.like(x.tensor, x)
        return
    if here.attr("mode", "constant") != "constant" or value or min(before + after) < 0 or any((before + after)[:2]):
        raise Unsupported("it pads with what are no zeros, along channels, or cuts")
    if any(n is None or n.op_type != "Conv" for n in here.consumers()):
        raise Unsupported("zeros around a map are read before convolutions alone")
    rows = (before[2], after[2]) if rank == 4 else (0, 0)
    here.give(here.map(0), MAP if rank == 4 else ROW, pad=(rows, (before[-1], after[-1])))
