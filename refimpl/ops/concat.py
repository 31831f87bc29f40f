"""Concatenation along the last axis: y[n, start_i + a] = x_i[n, a], start_i = Σ_{j<i} A_j.

The gradient of an input is its part of dy. One call for each input copies its part. Along a direction ty is the sum
over the inputs of tx_i in its place and 0 elsewhere.
Dimensions: N rows (all axes before the last), A_i channels of an input, K = Σ A_i channels of the output. Any dtype.
"""

from collections.abc import Sequence
from itertools import accumulate

from ..kernels.passes import Binding, Bound, ShapeError, declare, merged

SHAPES = {"x": "N* A", "y": "N* K", "dy": "N* K", "dx": "N* A", "tx": "N* A", "ty": "N* K"}
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
def forward(t, y, x, start=0):
    """Output y, (N, K), in its channels start … start + A − 1, from x, (N, A)."""
    n, a = divmod(t, x.shape[1])
    y[n, start + a] = x[n, a]


@declare(SHAPES, items="N A", writes="dx", derive=derive)
def grad_x(t, dx, dy, start=0):
    """Gradient of x, (N, A): the channels start … start + A − 1 of dy, (N, K)."""
    # forward: y[n, start + a] = x[n, a]
    n, a = divmod(t, dx.shape[1])
    dx[n, a] = dy[n, start + a]


def _place(sizes, attrs):
    """Which channels of the output are those of the input."""
    return [attrs["start"] <= k < attrs["start"] + sizes["A"] for k in range(sizes["K"])]


@declare(SHAPES, items="N K", writes="ty", derive=derive, alike={"K": _place})
def tangent(t, ty, tx, start=0):
    """Tangent ty, (N, K), that follows from tx, (N, A), of one input alone: 0 in the channels of the others."""
    # forward: y[n, start + a] = x[n, a]
    n, k = divmod(t, ty.shape[1])
    ty[n, k] = tx[n, k - start] if 0 <= k - start < tx.shape[1] else ty.dtype.type(0)


def bind(inputs: Sequence) -> Binding:
    """Forward, gradient and tangent of each input; ShapeError where they differ in more than the last axis."""
    widths = []
    for x in inputs:
        if x.shape[:-1] != inputs[0].shape[:-1]:
            raise ShapeError(f"inputs of shapes {inputs[0].shape} and {x.shape} differ in more than their last axis")
        widths.append(merged(SHAPES["x"], x.shape)[1])
    passes, tangents = [], []
    for i, (end, width) in enumerate(zip(accumulate(widths), widths, strict=True)):
        for passed, array, bound in ((forward, "x", passes), (grad_x, "dx", passes), (tangent, "tx", tangents)):
            names, attrs = {array: f"{array}{i}"}, {"start": end - width}
            bound.append(Bound(passed, names, attrs=attrs, known={"A": width}))
    return Binding(passes, {"K": sum(widths)}, tangents)
