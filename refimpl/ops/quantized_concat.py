"""Concatenation along the last axis in whole numbers, each input requantized to the scale of the output.

    y[n, k] = saturated(requantized(x_i[n, a] − x_zero[k], multiplier[k], shift[k]) + y_zero, low, high)

with k = start_i + a, start_i = Σ_{j<i} A_j. The zero point, the multiplier and the shift of an input, which stand for
x_scale/y_scale, are repeated along its channels; that they are whole numbers is our reading (TensorFlow Lite multiplies
by a float, or wants equal scales). One call for each input writes its part. It has no gradient.
Dimensions: N rows (all axes before the last), A_i channels of an input, K = Σ A_i channels of the output.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ..kernels.passes import Binding, Bound, ShapeError, declare, merged
from ..kernels.requantize import requantized, saturated

SHAPES = {
    "x": "int8: N* A", "x_zero": "int32: K", "multiplier": "int32: K", "shift": "int32: K", "y": "int8: N* K",
}  # fmt: skip
INPUTS = ("x*",)


def derive(sizes, attrs):
    """Nothing follows; ShapeError where the part does not lie in y."""
    if {"A", "K"} <= sizes.keys() and not 0 <= attrs["start"] <= sizes["K"] - sizes["A"]:
        raise ShapeError(f"channels {attrs['start']} to {attrs['start'] + sizes['A'] - 1} are not among {sizes['K']}")
    return {}


def drawn(pick, large):
    """An input of A channels at any place among K."""
    most = 256 if large else 6
    own, before, behind = pick(1, most), pick(0, most), pick(0, most)
    return {"N": pick(1, most), "A": own, "K": before + own + behind}, {"start": before}


@declare(SHAPES, items="N A", writes="y", derive=derive, inplace="y", parts="y")
def forward(t, y, x, x_zero, multiplier, shift, start=0, y_zero=0, low=-128, high=127, twice=False):
    """Output y, (N, K), in its channels start … start + A − 1, from x, (N, A), x_zero, multiplier and shift, (K,)."""
    n, a = divmod(t, x.shape[1])
    k = start + a
    scaled = requantized(np.int32(x[n, a]) - x_zero[k], multiplier[k], shift[k], twice) + y_zero
    y[n, k] = y.dtype.type(saturated(scaled, low, high))


def bind(inputs: Sequence) -> Binding:
    """A pass for each of the inputs; ShapeError where they differ in more than the last axis."""
    widths = []
    for x in inputs:
        if x.shape[:-1] != inputs[0].shape[:-1]:
            raise ShapeError(f"inputs of shapes {inputs[0].shape} and {x.shape} differ in more than their last axis")
        widths.append(merged(SHAPES["x"], x.shape)[1])
    passes = [
        Bound(forward, {"x": f"x{i}"}, attrs={"start": end - width}, known={"A": width})
        for i, (end, width) in enumerate(zip(accumulate(widths), widths, strict=True))
    ]
    return Binding(passes, {"K": sum(widths)})
