"""Concatenation along the last axis in whole numbers, each input requantized to the scale of the output.

    y[n, k] = saturated(requantized(x_i[n, a] − x_zero[k], multiplier[k], shift[k]) + y_zero, low, high)

with k = start_i + a, start_i = Σ_{j<i} A_j. The zero point, the multiplier and the shift of an input, which stand for
x_scale/y_scale, are repeated along its channels; that they are whole numbers is our reading (TensorFlow Lite multiplies
by a float, or wants equal scales). One call for each input writes its part. The gradient of the whole numbers of an
input, with rounding taken for the identity, is dx_i[n, a] = dy[n, k]·multiplier[k]·2^(shift[k] − 31) where
low < y < high, else 0; one bit an element is kept.
Dimensions: N rows (all axes before the last), A_i channels of an input, K = Σ A_i channels of the output, B = ⌈K/8⌉
bytes of mask.
"""

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ..kernels.geometry import mask_of
from ..kernels.passes import Binding, Bound, ShapeError, declare, merged
from ..kernels.requantize import requantized, saturated
from ..kernels.rounding import inner, passes_bit

SHAPES = {
    "x": "int8: N* A", "x_zero": "int32: K", "multiplier": "int32: K", "shift": "int32: K", "y": "int8: N* K",
    "mask": "uint8: N* B", "dy": "N* K", "dx": "N* A",
}  # fmt: skip
INPUTS = ("x*",)
mask_bytes, BYTES = mask_of("K")


def derive(sizes, attrs):
    """B; ShapeError where the part does not lie in y."""
    if {"A", "K"} <= sizes.keys() and not 0 <= attrs["start"] <= sizes["K"] - sizes["A"]:
        raise ShapeError(f"channels {attrs['start']} to {attrs['start'] + sizes['A'] - 1} are not among {sizes['K']}")
    return mask_bytes(sizes, attrs)


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
    y[n, k] = saturated(scaled, low, high, y)


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=BYTES)
def pack_mask(t, mask, y, low=-128, high=127):
    """Mask of y, (N, K), as bytes, (N, B), with a bit for each of eight elements, set where y is at no end."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < y.shape[1] else y.shape[1]
    byte = 0
    for k in range(8 * b, end):
        if inner(y[n, k], low, high):
            byte |= 1 << (k - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N A", writes="dx", derive=derive)
def grad_x(t, dx, dy, mask, multiplier, shift, start=0):
    """Gradient of x, (N, A), from the channels start … of dy, (N, K), mask, (N, B), multiplier and shift, (K,)."""
    # forward: y[n, start + a] = saturated(requantized(x[n, a] − x_zero) + y_zero)
    n, a = divmod(t, dx.shape[1])
    k = start + a
    value = dy[n, k] * (dx.dtype.type(multiplier[k]) / dx.dtype.type(np.int64(1) << (31 - shift[k])))
    dx[n, a] = value if passes_bit(mask, n, k) else dx.dtype.type(0)


def bind(inputs: Sequence) -> Binding:
    """Forward and gradient of each input; ShapeError where they differ in more than the last axis."""
    widths = []
    for x in inputs:
        if x.shape[:-1] != inputs[0].shape[:-1]:
            raise ShapeError(f"inputs of shapes {inputs[0].shape} and {x.shape} differ in more than their last axis")
        widths.append(merged(SHAPES["x"], x.shape)[1])
    passes = [
        Bound(passed, {a: f"{a}{i}"}, attrs={"start": end - width}, known={"A": width})
        for i, (end, width) in enumerate(zip(accumulate(widths), widths, strict=True))
        for passed, a in ((forward, "x"), (grad_x, "dx"))
    ]
    passes.append(Bound(pack_mask))
    return Binding(passes, {"K": sum(widths)})
