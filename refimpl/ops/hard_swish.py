"""Hard swish: y = x·min(max(x/6 + 1/2, 0), 1) (arXiv 1905.02244). NaN stays NaN.

With dy = ∂L/∂y, dx = dy·(x/3 + 1/2) where −3 < x < 3, nothing below and dy above.
What backward keeps is x: y falls and then rises, so two values of x have the same one.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"
SIXTH, THIRD = 1 / 6, 1 / 3


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y = x·min(max(x/6 + 1/2, 0), 1), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    float_ = y.dtype.type
    v = x[n, e]
    factor = float_(SIXTH) * v + float_(0.5)
    factor = float_(0) if v <= -3 else factor
    y[n, e] = v * (float_(1) if v >= 3 else factor)


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = x·min(max(x/6 + 1/2, 0), 1)
    n, e = divmod(t, dx.shape[1])
    float_ = dx.dtype.type
    v = x[n, e]
    factor = float_(THIRD) * v + float_(0.5)
    factor = float_(0) if v <= -3 else factor
    dx[n, e] = dy[n, e] * (float_(1) if v >= 3 else factor)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx·(x/3 + 1/2) where −3 < x < 3, 0 below and tx above


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.hard_swish(name, x)
