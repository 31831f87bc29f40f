"""Euclidean norm of a map along some of its axes, which stay with length 1: y[n,u,v,d] = √(Σ x[n,h,w,c]²).

`over` is as in `sum_over`. With dy = ∂L/∂y:  dx = dy·x/y, and 0 where the norm is 0. Along a direction:
ty = Σ x·tx / y.
Dimensions: N samples, H W C rows, columns and channels, U V D the same of y, each 1 or whole. Any float dtype.
"""

import math

from ..kernels.broadcast import along, behind, drawn_over, left_over
from ..kernels.passes import declare

SHAPES = {
    "x": "N H W C", "y": "N U V D", "dy": "N U V D", "dx": "N H W C", "tx": "N H W C", "ty": "N U V D",
}  # fmt: skip
drawn = drawn_over


@declare(SHAPES, items="N U V D", writes="y", derive=left_over)
def forward(t, y, x, over=(1, 1, 0)):
    """Output y, (N, U, V, D), norms of x, (N, H, W, C)."""
    rest, d = divmod(t, y.shape[3])
    rest, v = divmod(rest, y.shape[2])
    n, u = divmod(rest, y.shape[1])
    total = y.dtype.type(0)
    for h in range(along(u, y.shape[1]), behind(u, y.shape[1], x.shape[1])):
        for col in range(along(v, y.shape[2]), behind(v, y.shape[2], x.shape[2])):
            for c in range(along(d, y.shape[3]), behind(d, y.shape[3], x.shape[3])):
                total += x[n, h, col, c] * x[n, h, col, c]
    y[n, u, v, d] = math.sqrt(total)


@declare(SHAPES, items="N H W C", writes="dx", derive=left_over)
def grad_x(t, dx, dy, x, y, over=(1, 1, 0)):
    """Gradient of x, (N, H, W, C), from dy and y, (N, U, V, D), and x, (N, H, W, C)."""
    # forward: y[n,u,v,d] = √(Σ x[n,h,w,c]²)
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    u, v, d = along(h, dy.shape[1]), along(col, dy.shape[2]), along(c, dy.shape[3])
    norm = y[n, u, v, d]
    norm = dx.dtype.type(1) if norm == 0 else norm  # then x is 0 too
    dx[n, h, col, c] = dy[n, u, v, d] * x[n, h, col, c] / norm


@declare(SHAPES, items="N U V D", writes="ty", derive=left_over)
def tangent(t, ty, tx, x, y, over=(1, 1, 0)):
    """Tangent ty, (N, U, V, D), from tx and x, (N, H, W, C), and y, (N, U, V, D)."""
    # forward: y[n,u,v,d] = √(Σ x[n,h,w,c]²)
    rest, d = divmod(t, ty.shape[3])
    rest, v = divmod(rest, ty.shape[2])
    n, u = divmod(rest, ty.shape[1])
    total = ty.dtype.type(0)
    for h in range(along(u, ty.shape[1]), behind(u, ty.shape[1], x.shape[1])):
        for col in range(along(v, ty.shape[2]), behind(v, ty.shape[2], x.shape[2])):
            for c in range(along(d, ty.shape[3]), behind(d, ty.shape[3], x.shape[3])):
                total += x[n, h, col, c] * tx[n, h, col, c]
    norm = y[n, u, v, d]
    ty[n, u, v, d] = total / (ty.dtype.type(1) if norm == 0 else norm)


TANGENT = (tangent,)
