"""Sum, or mean, of a map along some of its axes, which stay with length 1: y[n,u,v,d] = Σ x[n,h,w,c].

`over` says for rows, columns and channels whether they are summed over: 1, or left: 0. With dy = ∂L/∂y, each element
that was summed has the gradient dy of its sum, divided by their number where `mean`.
Dimensions: N samples, H W C rows, columns and channels, U V D the same of y, each 1 or whole. Any float dtype.
"""

from ..kernels.broadcast import along, behind, drawn_over, left_over
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N H W C", "y": "N U V D", "dy": "N U V D", "dx": "N H W C"}
drawn = drawn_over


@declare(SHAPES, items="N U V D", writes="y", derive=left_over)
def forward(t, y, x, over=(1, 1, 0), mean=False):
    """Output y, (N, U, V, D), sums or means of x, (N, H, W, C)."""
    rest, d = divmod(t, y.shape[3])
    rest, v = divmod(rest, y.shape[2])
    n, u = divmod(rest, y.shape[1])
    total = y.dtype.type(0)
    for h in range(along(u, y.shape[1]), behind(u, y.shape[1], x.shape[1])):
        for col in range(along(v, y.shape[2]), behind(v, y.shape[2], x.shape[2])):
            for c in range(along(d, y.shape[3]), behind(d, y.shape[3], x.shape[3])):
                total += x[n, h, col, c]
    if mean:
        count = (x.shape[1] // y.shape[1]) * (x.shape[2] // y.shape[2]) * (x.shape[3] // y.shape[3])
        total = total / y.dtype.type(count)
    y[n, u, v, d] = total


@declare(SHAPES, items="N H W C", writes="dx", derive=left_over)
def grad_x(t, dx, dy, over=(1, 1, 0), mean=False):
    """Gradient of x, (N, H, W, C), from dy, (N, U, V, D). H, W and C must be given."""
    # forward: y[n,u,v,d] = Σ x[n,h,w,c]
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    value = dy[n, along(h, dy.shape[1]), along(col, dy.shape[2]), along(c, dy.shape[3])]
    if mean:
        count = (dx.shape[1] // dy.shape[1]) * (dx.shape[2] // dy.shape[2]) * (dx.shape[3] // dy.shape[3])
        value = value / dx.dtype.type(count)
    dx[n, h, col, c] = value


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # the sums of tx
