"""Elements as whole numbers: kind 0 those below, 1 those above, 2 the nearest, a half to the even one, 3 towards 0.

It has no gradient: between two steps y does not follow x, so that gradients stop here. NaN stays NaN.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import ShapeError, declare

SHAPES = {"x": "N E*", "y": "N E*"}
STOPS = ("x",)
CHANNELS = "kept"
WHOLE = 2.0**52  # from here on every float is a whole number


def derive(sizes, attrs):
    """Nothing follows; ShapeError for a kind that is none."""
    if not 0 <= attrs["kind"] <= 3:
        raise ShapeError(f"kind must be 0 to 3, got {attrs['kind']}")
    return {}


def drawn(pick, large):
    """Any shape, one of the four kinds."""
    most = 24 if large else 6
    return {"N": pick(1, most), "E": pick(1, most * most)}, {"kind": pick(0, 3)}


@declare(SHAPES, items="N E", writes="y", derive=derive)
def forward(t, y, x, kind=0):
    """Output y, (N, E): x, (N, E), as whole numbers."""
    n, e = divmod(t, y.shape[1])
    v, float_ = x[n, e], y.dtype.type
    small = abs(v) < float_(WHOLE)
    inside = v if small else float_(0)
    if kind == 0:
        whole = float_(math.floor(inside))
    elif kind == 1:
        whole = float_(math.ceil(inside))
    elif kind == 2:
        whole = float_(round(inside))
    else:
        whole = float_(math.trunc(inside))
    y[n, e] = whole if small else v
