"""Maximum of a map along some of its axes, which stay with length 1: y[n,u,v,d] = max x[n,h,w,c].

`over` is as in `sum_over`. What backward keeps is the place of the maximum, counted row by row over what it is of: the
first of several, or the last NaN, which wins over every number. With dy = ∂L/∂y, dx is dy there and 0 elsewhere.
Dimensions: N samples, H W C rows, columns and channels, U V D the same of y, each 1 or whole. Any float dtype.
"""

from ..kernels.broadcast import along, behind, drawn_over, left_over
from ..kernels.passes import declare

SHAPES = {
    "x": "N H W C", "y": "N U V D", "place": "int32: N U V D", "dy": "N U V D", "dx": "N H W C", "tx": "N H W C",
    "ty": "N U V D",
}  # fmt: skip
drawn = drawn_over


@declare(SHAPES, items="N U V D", writes="y", derive=left_over)
def forward(t, y, x, over=(1, 1, 0)):
    """Output y, (N, U, V, D), maxima of x, (N, H, W, C)."""
    rest, d = divmod(t, y.shape[3])
    rest, v = divmod(rest, y.shape[2])
    n, u = divmod(rest, y.shape[1])
    best = x[n, along(u, y.shape[1]), along(v, y.shape[2]), along(d, y.shape[3])]
    for h in range(along(u, y.shape[1]), behind(u, y.shape[1], x.shape[1])):
        for col in range(along(v, y.shape[2]), behind(v, y.shape[2], x.shape[2])):
            for c in range(along(d, y.shape[3]), behind(d, y.shape[3], x.shape[3])):
                value = x[n, h, col, c]
                if (value > best) | (value != value):
                    best = value
    y[n, u, v, d] = best


@declare(SHAPES, items="N U V D", writes="place", derive=left_over)
def find(t, place, x, over=(1, 1, 0)):
    """Place of each maximum, (N, U, V, D), of x, (N, H, W, C). For training only."""
    rest, d = divmod(t, place.shape[3])
    rest, v = divmod(rest, place.shape[2])
    n, u = divmod(rest, place.shape[1])
    best = x[n, along(u, place.shape[1]), along(v, place.shape[2]), along(d, place.shape[3])]
    found = 0
    number = 0
    for h in range(along(u, place.shape[1]), behind(u, place.shape[1], x.shape[1])):
        for col in range(along(v, place.shape[2]), behind(v, place.shape[2], x.shape[2])):
            for c in range(along(d, place.shape[3]), behind(d, place.shape[3], x.shape[3])):
                value = x[n, h, col, c]
                if (value > best) | (value != value):
                    best = value
                    found = number
                number += 1
    place[n, u, v, d] = found


@declare(SHAPES, items="N H W C", writes="dx", derive=left_over)
def grad_x(t, dx, dy, place, over=(1, 1, 0)):
    """Gradient of x, (N, H, W, C), from dy and place, (N, U, V, D). H, W and C must be given."""
    # forward: y[n,u,v,d] = x at place[n,u,v,d] of what it is the maximum of
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    number = h if over[0] else 0
    number = number * dx.shape[2] + col if over[1] else number
    number = number * dx.shape[3] + c if over[2] else number
    u, v, d = along(h, dy.shape[1]), along(col, dy.shape[2]), along(c, dy.shape[3])
    value = dy[n, u, v, d]  # read always: the work does not depend on the data
    dx[n, h, col, c] = value if place[n, u, v, d] == number else dx.dtype.type(0)


@declare(SHAPES, items="N U V D", writes="ty", derive=left_over)
def tangent(t, ty, tx, place, over=(1, 1, 0)):
    """Tangent ty, (N, U, V, D): that of x, tx, (N, H, W, C), at the place of each maximum, (N, U, V, D)."""
    # forward: y[n,u,v,d] = x at place[n,u,v,d] of what it is the maximum of
    rest, d = divmod(t, ty.shape[3])
    rest, v = divmod(rest, ty.shape[2])
    n, u = divmod(rest, ty.shape[1])
    where, number, chosen = place[n, u, v, d], 0, ty.dtype.type(0)
    for h in range(along(u, ty.shape[1]), behind(u, ty.shape[1], tx.shape[1])):
        for col in range(along(v, ty.shape[2]), behind(v, ty.shape[2], tx.shape[2])):
            for c in range(along(d, ty.shape[3]), behind(d, ty.shape[3], tx.shape[3])):
                value = tx[n, h, col, c]
                chosen = value if where == number else chosen
                number += 1
    ty[n, u, v, d] = chosen


TANGENT = (tangent,)
