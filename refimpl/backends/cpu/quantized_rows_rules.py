"""Blocks of convolutions in whole numbers row by row, for the least memory."""

import numpy as np

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import quantized_conv2d
from ..common import absent, named, present
from . import quantized_rows, tiles


def block(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A convolution, a depthwise one behind it and a 1×1 one behind that, where nobody else reads the maps between."""
    calls = [call]
    while len(calls) < 3:
        following = lowering.reader(calls[-1].arrays["y"], quantized_conv2d.forward)
        if following is None or following.arrays["x"].root is not calls[-1].arrays["y"].root:
            return None
        calls.append(following)
    first, middle, last = calls
    if first.sizes["G"] != 1 or not 1 < middle.sizes["G"] == middle.sizes["C"] == middle.sizes["K"]:
        return None
    if last.sizes["G"] != 1 or not tiles.in_place(last.sizes, last.attrs):
        return None
    if any(c.arrays["w"].dtype != np.int8 or tuple(c.attrs["dilation"]) != (1, 1) for c in calls):
        return None
    strides = [c.attrs["stride"] for c in calls]
    if len({c.attrs["twice"] for c in calls}) > 1 or any(down != across for down, across in strides):
        return None
    x, y, depth = first.arrays["x"], last.arrays["y"], first.sizes["K"]
    arrays = [c.arrays.get(name) for c in calls for name in ("w", "b", "multiplier", "shift")]
    arrays = [absent(1, np.int32) if b is None else b for b in arrays]
    threads, rows, width = lowering.threads, first.sizes["P"], first.sizes["Q"]
    own = (
        lowering.scratch(call, "ring", (threads, middle.sizes["R"], width, depth), np.int8),
        lowering.scratch(call, "pixel", (threads, depth), np.int8),
        lowering.scratch(call, "sums", (threads, max(depth, last.sizes["K"])), np.int32),
    )
    geometry = (
        rows,
        *(n for c in (first, middle) for n in (c.attrs["stride"][0], *(pad[0] for pad in c.attrs["pad"]))),
    )
    numbers = [tuple(c.attrs[name] for name in ("x_zero", "y_zero", "low", "high")) for c in calls]
    args = (y, x, *arrays, *own, geometry, *numbers, first.attrs["twice"])
    return [Launch(named(calls), quantized_rows.three, args, present(x, *arrays), (y,), tuple(calls), own)]


RULES = {block: (quantized_conv2d.forward,)}  # rule → the passes of the calls that it begins at
