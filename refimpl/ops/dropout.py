"""Dropout in training: y = x / (1 − rate) where an element is kept, else 0; dx = dy under the same mask.

No mask is stored: it is drawn again in backward from (seed, stream, step, index), with index n·E + e, which costs
integer work and saves one bit an element between forward and backward. An element is dropped where its draw of 24 bits
is below rate·2²⁴. At inference dropout is the identity, and no pass runs.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype. `step` and `seed` are arrays,
so that the host sets them in each run; `stream` differs from layer to layer.
"""

from ..kernels.passes import Bound, ShapeError, declare
from ..kernels.random import DROPOUT as STREAM  # noqa: F401 (stated to the compiler)
from ..kernels.random import words

SHAPES = {"x": "N E*", "y": "N E*", "step": "int64: 1", "seed": "int64: 1", "dy": "N E*", "dx": "N E*"}

HOST = {"step": "update", "seed": "seed"}
CHANNELS = "kept"


def variant(training: bool, statistics: bool) -> str:
    """Inference drops nothing."""
    return "dropout" if training else "identity"


def derive(sizes, attrs):
    """Nothing follows; ShapeError where rate is not in [0, 1)."""
    if not 0 <= attrs["rate"] < 1:
        raise ShapeError(f"rate must be at least 0 and below 1, got {attrs['rate']}")
    return {}


@declare(SHAPES, items="N E", writes="y", derive=derive)
def forward(t, y, x, step, seed, rate=0.5, stream=0):
    """Output y, (N, E), from x, (N, E), in the training step `step`, (1,), of a run from `seed`, (1,)."""
    n, e = divmod(t, y.shape[1])
    draw, _ = words(seed[0], stream, step[0], t)
    value = x[n, e] * y.dtype.type(1 / (1 - rate))
    y[n, e] = value if draw >> 8 >= int(rate * 16777216 + 0.5) else y.dtype.type(0)


@declare(SHAPES, items="N E", writes="dx", derive=derive)
def grad_x(t, dx, dy, step, seed, rate=0.5, stream=0):
    """Gradient of x, (N, E), from dy, (N, E), in the training step `step`, (1,), of a run from `seed`, (1,)."""
    # forward: y = x / (1 − rate) where the same draw is at least rate·2²⁴, else 0
    n, e = divmod(t, dx.shape[1])
    draw, _ = words(seed[0], stream, step[0], t)
    value = dy[n, e] * dx.dtype.type(1 / (1 - rate))
    dx[n, e] = value if draw >> 8 >= int(rate * 16777216 + 0.5) else dx.dtype.type(0)


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # ty = tx / (1 − rate) where x is kept, else 0
