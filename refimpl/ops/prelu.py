"""Rectifier with a slope that trains: y = x where x > 0, else w·x (arXiv 1502.01852). NaN stays NaN.

With dy = ∂L/∂y:  dx = dy where x > 0, else w·dy;  dw = Σ dy·x over what is not above 0, the samples and the axes along
which w has length 1. Along a direction:  ty = tx where x > 0, else w·tx + tw·x. It trains
behind the first layer that does.
Dimensions: N samples, H W C rows, columns and channels (`kernels.broadcast`), U V D the same of w, each 1 or whole. Any
float dtype.
"""

from ..kernels.broadcast import along, behind, drawn, fits  # noqa: F401
from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N H* W C", "w": "U* V D", "y": "N H* W C", "dy": "N H* W C", "dx": "N H* W C", "dw": "U* V D",
    "tw": "U* V D", "ty": "N H* W C",
}  # fmt: skip
PARAMS = ("w",)
TRAINS = "behind"


@declare(SHAPES, items="N H W C", writes="y", derive=fits)
def forward(t, y, x, w):
    """Output y, (N, H, W, C): x, (N, H, W, C), where it is above 0, else w·x, w: (U, V, D)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    value = x[n, h, col, c]
    below = w[along(h, w.shape[0]), along(col, w.shape[1]), along(c, w.shape[2])] * value
    y[n, h, col, c] = value if value > 0 else below


@declare(SHAPES, items="N H W C", writes="dx", derive=fits)
def grad_x(t, dx, dy, x, w):
    """Gradient of x, (N, H, W, C): dy where x, both (N, H, W, C), is above 0, else w·dy, w: (U, V, D)."""
    # forward: y = x where x > 0, else w·x
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    value = dy[n, h, col, c]
    below = w[along(h, w.shape[0]), along(col, w.shape[1]), along(c, w.shape[2])] * value
    dx[n, h, col, c] = value if x[n, h, col, c] > 0 else below


@declare(SHAPES, items="U V D", writes="dw", derive=fits, sums="N", adds="N")
def grad_w(t, dw, dy, x):
    """Gradient of w, (U, V, D): Σ dy·x, both (N, H, W, C), where x is not above 0, over n and axes of length 1 of w."""
    # forward: y = x where x > 0, else w·x
    rest, d = divmod(t, dw.shape[2])
    u, v = divmod(rest, dw.shape[1])
    total = zero = dw.dtype.type(0)
    for n in range(dy.shape[0]):
        for h in range(along(u, dw.shape[0]), behind(u, dw.shape[0], dy.shape[1])):
            for col in range(along(v, dw.shape[1]), behind(v, dw.shape[1], dy.shape[2])):
                for c in range(along(d, dw.shape[2]), behind(d, dw.shape[2], dy.shape[3])):
                    value = x[n, h, col, c]
                    total += dy[n, h, col, c] * (zero if value > 0 else value)
    dw[u, v, d] = total


@declare(SHAPES, items="N H W C", writes="ty", derive=fits)
def tangent_w(t, ty, x, tw):
    """Tangent ty, (N, H, W, C), that follows from tw, (U, V, D), alone: tw·x where x, (N, H, W, C), is not above 0."""
    # forward: y = x where x > 0, else w·x
    rest, c = divmod(t, ty.shape[3])
    rest, col = divmod(rest, ty.shape[2])
    n, h = divmod(rest, ty.shape[1])
    value = x[n, h, col, c]
    below = ty.dtype.type(0) if value > 0 else value
    ty[n, h, col, c] = tw[along(h, tw.shape[0]), along(col, tw.shape[1]), along(c, tw.shape[2])] * below


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}), tangent_w)  # ty = tx where x > 0, else w·tx + tw·x


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.prelu(name, x, [(1, n)[pick(0, 1)] for n in g.shape(x)[1:]])
