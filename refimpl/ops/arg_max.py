"""Place of the maximum of a map along some of its axes, as a float: y[n,u,v,d] = arg max x[n,h,w,c].

`over` is as in `sum_over`; places are counted row by row over what the maximum is of. Of equal ones the first counts,
or with `last` the last; the last NaN wins over every number. It has no gradient: gradients stop here.
Dimensions: N samples, H W C rows, columns and channels, U V D the same of y, each 1 or whole. Any float dtype.
"""

from ..kernels.broadcast import along, behind, drawn_over, left_over
from ..kernels.passes import declare

SHAPES = {"x": "N H W C", "y": "N U V D"}
STOPS = ("x",)
drawn = drawn_over


@declare(SHAPES, items="N U V D", writes="y", derive=left_over)
def forward(t, y, x, over=(1, 1, 0), last=False):
    """Output y, (N, U, V, D), places of the maxima of x, (N, H, W, C)."""
    rest, d = divmod(t, y.shape[3])
    rest, v = divmod(rest, y.shape[2])
    n, u = divmod(rest, y.shape[1])
    best = x[n, along(u, y.shape[1]), along(v, y.shape[2]), along(d, y.shape[3])]
    found = 0
    number = 0
    for h in range(along(u, y.shape[1]), behind(u, y.shape[1], x.shape[1])):
        for col in range(along(v, y.shape[2]), behind(v, y.shape[2], x.shape[2])):
            for c in range(along(d, y.shape[3]), behind(d, y.shape[3], x.shape[3])):
                value = x[n, h, col, c]
                better = value >= best if last else value > best
                if better | (value != value):
                    best = value
                    found = number
                number += 1
    y[n, u, v, d] = y.dtype.type(found)
