"""Elements as whole numbers: kind 0 those below, 1 those above, 2 the nearest, a half to the even one, 3 towards 0.

It has no gradient: between two steps y does not follow x, so that gradients stop here. NaN stays NaN.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import numpy as np

from ..kernels.passes import ShapeError, declare

SHAPES = {"x": "N E*", "y": "N E*"}
STOPS = ("x",)
CHANNELS = "kept"


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
    if kind == 0:
        y[n, e] = np.floor(x[n, e])
    elif kind == 1:
        y[n, e] = np.ceil(x[n, e])
    elif kind == 2:
        y[n, e] = np.rint(x[n, e])
    else:
        y[n, e] = np.trunc(x[n, e])
