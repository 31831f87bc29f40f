"""Mean of each window: y[n,p,q,c] = Σ_{r,s} x[n, p·stride − top + r, q·stride − left + s, c] / count.

Taps outside the map count as zero and are skipped. `count` is the number of taps inside the map, and where
`count_include_pad`, as PyTorch's default, of those in the padding too, but for its last `overhang` rows and columns,
which a ceil mode adds (`geometry.ceil_pad`). With dy = ∂L/∂y, dx[n,h,w,c] = Σ dy[n,p,q,c] / count[p,q] over the windows
that hold (h, w).
Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns. Any float dtype.
"""

from ..kernels.geometry import POOL_MAP, POOL_OUT, counted_taps, drawn_pool, pool_derive
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N H W C", "y": "N P Q C", "dy": "N P Q C", "dx": "N H W C"}
CHANNELS = "kept"
drawn = drawn_pool


@declare(SHAPES, items="N P Q C", writes="y", derive=pool_derive, alike=POOL_OUT)
def forward(t, y, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), count_include_pad=True, overhang=(0, 0)):
    """Output y, (N, P, Q, C), the mean of each window of x, (N, H, W, C)."""
    rest, c = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    total = y.dtype.type(0)
    for r in range(window[0]):
        h = p * stride[0] - pad[0][0] + r
        if 0 <= h < x.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] - pad[1][0] + s
                if 0 <= col < x.shape[2]:
                    total += x[n, h, col, c]
    rows = counted_taps(p * stride[0] - pad[0][0], window[0], x.shape[1], pad[0], overhang[0], count_include_pad)
    columns = counted_taps(q * stride[1] - pad[1][0], window[1], x.shape[2], pad[1], overhang[1], count_include_pad)
    y[n, p, q, c] = total / y.dtype.type(rows * columns)


@declare(SHAPES, items="N H W C", writes="dx", derive=pool_derive, alike=POOL_MAP)
def grad_x(t, dx, dy, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), count_include_pad=True, overhang=(0, 0)):
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, C). H and W must be given: several sizes give one P."""
    # forward: y[n,p,q,c] = Σ_{r,s} x[n, p·stride − top + r, q·stride − left + s, c] / count
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    total = dx.dtype.type(0)
    for r in range(window[0]):
        p, off = divmod(h + pad[0][0] - r, stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            rows = counted_taps(h - r, window[0], dx.shape[1], pad[0], overhang[0], count_include_pad)
            for s in range(window[1]):
                q, off = divmod(col + pad[1][0] - s, stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    columns = counted_taps(col - s, window[1], dx.shape[2], pad[1], overhang[1], count_include_pad)
                    total += dy[n, p, q, c] / dx.dtype.type(rows * columns)
    dx[n, h, col, c] = total


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # the means of tx
