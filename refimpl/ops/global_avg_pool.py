"""Mean of the whole map: y[n,c] = Σ_{h,w} x[n,h,w,c] / (H·W). dx[n,h,w,c] = dy[n,c] / (H·W).

Dimensions: N samples, H W rows and columns, C channels. Any float dtype.
"""

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N H W C", "y": "N C", "dy": "N C", "dx": "N H W C"}
CHANNELS = "kept"


@declare(SHAPES, items="N C", writes="y", sums="H W", adds="H W", divisors={"y": lambda sizes: sizes["H"] * sizes["W"]})
def forward(t, y, x):
    """Output y, (N, C), the mean of each channel of x, (N, H, W, C)."""
    n, c = divmod(t, y.shape[1])
    total = y.dtype.type(0)
    for h in range(x.shape[1]):
        for col in range(x.shape[2]):
            total += x[n, h, col, c]
    y[n, c] = total / y.dtype.type(x.shape[1] * x.shape[2])


@declare(SHAPES, items="N H W C", writes="dx")
def grad_x(t, dx, dy):
    """Gradient of x, (N, H, W, C), from dy, (N, C). H and W must be given."""
    # forward: y[n,c] = Σ_{h,w} x[n,h,w,c] / (H·W)
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    dx[n, h, col, c] = dy[n, c] / dx.dtype.type(dx.shape[1] * dx.shape[2])


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # the means of tx
