"""A number for each sign: y = above where x > 0, below where x < 0, at where x is 0; NaN stays NaN.

So −1, 0 and 1 are the sign, and 0, 0 and 1 say whether x is above 0. It has no gradient: gradients stop here.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import declare

SHAPES = {"x": "N E*", "y": "N E*"}
STOPS = ("x",)
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, below=-1.0, at=0.0, above=1.0):
    """Output y, (N, E), of x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    v, float_ = x[n, e], y.dtype.type
    zero = float_(0)
    positive, negative, level = v > zero, v < zero, v == zero
    y[n, e] = float_(above) if positive else float_(below) if negative else float_(at) if level else v
