"""Weights that multiply every sample: y = x·w, along axes of length 1 of w the same for all, as the scale of a layer.

With dy = ∂L/∂y:  dx = dy·w,  dw = Σ dy·x over the samples and those axes. Along a direction:  ty = tx·w + x·tw. It
trains behind the first layer that does.
Dimensions: N samples, H W C rows, columns and channels (`kernels.broadcast`), U V D the same of w, each 1 or whole. Any
float dtype.
"""

from ..kernels.broadcast import along, behind, drawn, fits  # noqa: F401
from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N H* W C", "w": "U* V D", "y": "N H* W C", "dy": "N H* W C", "dx": "N H* W C", "dw": "U* V D",
}  # fmt: skip
PARAMS = ("w",)
TRAINS = "behind"
SCALES = ("w",)


@declare(SHAPES, items="N H W C", writes="y", derive=fits)
def forward(t, y, x, w):
    """Output y = x·w, (N, H, W, C), from x, (N, H, W, C), and w, (U, V, D)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    y[n, h, col, c] = x[n, h, col, c] * w[along(h, w.shape[0]), along(col, w.shape[1]), along(c, w.shape[2])]


@declare(SHAPES, items="N H W C", writes="dx", derive=fits)
def grad_x(t, dx, dy, w):
    """Gradient of x, (N, H, W, C): dy·w, from dy, (N, H, W, C), and w, (U, V, D)."""
    # forward: y = x·w
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    dx[n, h, col, c] = dy[n, h, col, c] * w[along(h, w.shape[0]), along(col, w.shape[1]), along(c, w.shape[2])]


@declare(SHAPES, items="U V D", writes="dw", derive=fits, sums="N", adds="N")
def grad_w(t, dw, dy, x):
    """Gradient of w, (U, V, D): Σ dy·x over n and the axes along which w has length 1; dy, x: (N, H, W, C)."""
    # forward: y = x·w
    rest, d = divmod(t, dw.shape[2])
    u, v = divmod(rest, dw.shape[1])
    total = dw.dtype.type(0)
    for n in range(dy.shape[0]):
        for h in range(along(u, dw.shape[0]), behind(u, dw.shape[0], dy.shape[1])):
            for col in range(along(v, dw.shape[1]), behind(v, dw.shape[1], dy.shape[2])):
                for c in range(along(d, dw.shape[2]), behind(d, dw.shape[2], dy.shape[3])):
                    total += dy[n, h, col, c] * x[n, h, col, c]
    dw[u, v, d] = total


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}), Bound(forward, {"y": "ty", "w": "tw"}))  # ty = tx·w + x·tw


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.mul_weight(name, x, [(1, n)[pick(0, 1)] for n in g.shape(x)[1:]])
