"""Product of a tensor and one that is spread along its axes of length 1: y = x·s, each sample with its own s.

With dy = ∂L/∂y:  dx = dy·s,  ds = Σ dy·x over those axes. Along a direction:  ty = tx·s + x·ts. One factor for each
channel of a map is `scale_channels`.
Dimensions: N samples, H W C rows, columns and channels (`kernels.broadcast`), U V D the same of s, each 1 or whole. Any
float dtype.
"""

from ..kernels.broadcast import along, behind, drawn, fits  # noqa: F401
from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N H* W C", "s": "N U* V D", "y": "N H* W C", "dy": "N H* W C", "dx": "N H* W C", "ds": "N U* V D",
}  # fmt: skip
INPUTS = ("x", "s")


@declare(SHAPES, items="N H W C", writes="y", derive=fits)
def forward(t, y, x, s):
    """Output y = x·s, (N, H, W, C), from x, (N, H, W, C), and s, (N, U, V, D)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    y[n, h, col, c] = x[n, h, col, c] * s[n, along(h, s.shape[1]), along(col, s.shape[2]), along(c, s.shape[3])]


@declare(SHAPES, items="N H W C", writes="dx", derive=fits)
def grad_x(t, dx, dy, s):
    """Gradient of x, (N, H, W, C): dy·s, from dy, (N, H, W, C), and s, (N, U, V, D)."""
    # forward: y = x·s
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    dx[n, h, col, c] = dy[n, h, col, c] * s[n, along(h, s.shape[1]), along(col, s.shape[2]), along(c, s.shape[3])]


@declare(SHAPES, items="N U V D", writes="ds", derive=fits)
def grad_s(t, ds, dy, x):
    """Gradient of s, (N, U, V, D): Σ dy·x, both (N, H, W, C), over the axes along which s has length 1."""
    # forward: y = x·s
    rest, d = divmod(t, ds.shape[3])
    rest, v = divmod(rest, ds.shape[2])
    n, u = divmod(rest, ds.shape[1])
    total = ds.dtype.type(0)
    for h in range(along(u, ds.shape[1]), behind(u, ds.shape[1], dy.shape[1])):
        for col in range(along(v, ds.shape[2]), behind(v, ds.shape[2], dy.shape[2])):
            for c in range(along(d, ds.shape[3]), behind(d, ds.shape[3], dy.shape[3])):
                total += dy[n, h, col, c] * x[n, h, col, c]
    ds[n, u, v, d] = total


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}), Bound(forward, {"y": "ty", "s": "ts"}))  # ty = tx·s + x·ts
