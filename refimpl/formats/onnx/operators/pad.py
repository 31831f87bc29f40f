"""A border around a map, or channels beside it: of zeros, of another number, or of the map itself.

Zeros before convolutions become the convolutions' own padding.
"""

import numpy as np

from ..value import MAP, ROW, Unsupported
from ..walk import OnnxNode

OPERATORS = ("Pad",)
MODES = ("constant", "edge", "reflect", "wrap")  # in our order


def convert(here: OnnxNode) -> None:
    """A border; no node where a convolution has it."""
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
    mode = here.attr("mode", "constant")
    if mode not in MODES or min(before + after) < 0 or before[0] or after[0]:
        raise Unsupported(f"it pads samples, cuts, or has the mode {mode}; {', '.join(MODES)} are read")
    places = MAP if rank == 4 else ROW
    if mode == MODES[0] and not value and not before[1] + after[1]:
        if all(n is not None and n.op_type == "Conv" for n in here.readers()):
            rows = (before[2], after[2]) if rank == 4 else (0, 0)
            here.give(here.map(0), places, pad=(rows, (before[-1], after[-1])))
            return
    own = here.map(0)
    sides = {places[axis]: (before[axis], after[axis]) for axis in range(1, rank)}
    rows = sides.get(1, (0, 0))
    y = here.graph.border(here.name, own, (rows, sides[2]), sides[3], value, MODES.index(mode))
    here.give(y, places)
