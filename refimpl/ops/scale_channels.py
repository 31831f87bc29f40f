"""Each channel of a map times a factor of the sample: y[n,h,w,c] = x[n,h,w,c]·s[n,c], as squeeze-and-excitation scales.

With dy = ∂L/∂y:  dx[n,h,w,c] = dy[n,h,w,c]·s[n,c],  ds[n,c] = Σ_{h,w} dy[n,h,w,c]·x[n,h,w,c] (arXiv 1709.01507).
Dimensions: N samples, H W rows and columns, C channels. Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N H W C", "s": "N C", "y": "N H W C", "dy": "N H W C", "dx": "N H W C", "ds": "N C"}
INPUTS = ("x", "s")
CHANNELS = "kept"


@declare(SHAPES, items="N H W C", writes="y")
def forward(t, y, x, s):
    """Output y = x·s, (N, H, W, C), from x, (N, H, W, C), and s, (N, C)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    y[n, h, col, c] = x[n, h, col, c] * s[n, c]


@declare(SHAPES, items="N H W C", writes="dx")
def grad_x(t, dx, dy, s):
    """Gradient of x, (N, H, W, C): dy·s, from dy, (N, H, W, C), and s, (N, C)."""
    # forward: y = x·s
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    dx[n, h, col, c] = dy[n, h, col, c] * s[n, c]


@declare(SHAPES, items="N C", writes="ds", sums="H W", adds="H W")
def grad_s(t, ds, dy, x):
    """Gradient of s, (N, C): Σ_{h,w} dy·x, from dy and x, (N, H, W, C)."""
    # forward: y[n,h,w,c] = x[n,h,w,c]·s[n,c]
    n, c = divmod(t, ds.shape[1])
    total = ds.dtype.type(0)
    for h in range(x.shape[1]):
        for col in range(x.shape[2]):
            total += dy[n, h, col, c] * x[n, h, col, c]
    ds[n, c] = total


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}), Bound(forward, {"y": "ty", "s": "ts"}))  # ty = tx·s + x·ts
