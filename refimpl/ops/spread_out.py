"""A map spread along its axes of length 1: y[n,h,w,c] = x[n,u,v,d], `size` rows, columns and channels.

With dy = ∂L/∂y, dx is the sum of dy over what an element was spread to.
Dimensions: N samples, H W C rows, columns and channels of y, U V D those of x, each 1 or whole. Any float dtype.
"""

from ..kernels.broadcast import along, behind, fits
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N U V D", "y": "N H W C", "dy": "N H W C", "dx": "N U V D"}


def derive(sizes, attrs):
    """H, W and C: what `size` says; ShapeError where an axis of x is neither whole nor of length 1."""
    found = dict(zip("HWC", attrs["size"], strict=True))
    return fits({**sizes, **found}, attrs) | found


def drawn(pick, large):
    """A map with some of its axes of length 1, spread to any size."""
    most = 24 if large else 5
    size = (pick(1, most), pick(1, most), pick(1, 2 * most))
    own = {letter: (1, n)[pick(0, 1)] for letter, n in zip("UVD", size, strict=True)}
    attrs = {"size": size}
    return {"N": pick(1, most)} | own | derive(own, attrs), attrs


@declare(SHAPES, items="N H W C", writes="y", derive=derive)
def forward(t, y, x, size=(1, 1, 1)):
    """Output y, (N, H, W, C), of x, (N, U, V, D)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    y[n, h, col, c] = x[n, along(h, x.shape[1]), along(col, x.shape[2]), along(c, x.shape[3])]


@declare(SHAPES, items="N U V D", writes="dx", derive=derive)
def grad_x(t, dx, dy, size=(1, 1, 1)):
    """Gradient of x, (N, U, V, D): sums of dy, (N, H, W, C). U, V and D must be given."""
    # forward: y[n,h,w,c] = x[n,u,v,d]
    rest, d = divmod(t, dx.shape[3])
    rest, v = divmod(rest, dx.shape[2])
    n, u = divmod(rest, dx.shape[1])
    total = dx.dtype.type(0)
    for h in range(along(u, dx.shape[1]), behind(u, dx.shape[1], dy.shape[1])):
        for col in range(along(v, dx.shape[2]), behind(v, dx.shape[2], dy.shape[2])):
            for c in range(along(d, dx.shape[3]), behind(d, dx.shape[3], dy.shape[3])):
                total += dy[n, h, col, c]
    dx[n, u, v, d] = total


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # tx, spread
