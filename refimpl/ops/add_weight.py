"""Weights added to every sample: y = x + w, along axes of length 1 of w the same for all, as a bias apart from its
layer, or an embedding of positions.

With dy = ∂L/∂y:  dw = Σ dy over the samples and those axes;  dx is dy itself, so no kernel runs for it. Along a
direction:  ty = tx + tw. It trains behind the first layer that does.
Dimensions: N samples, H W C rows, columns and channels (`kernels.broadcast`), U V D the same of w, each 1 or whole. Any
float dtype.
"""

from ..kernels.broadcast import along, behind, drawn, fits  # noqa: F401
from ..kernels.passes import declare

SHAPES = {
    "x": "N H* W C", "w": "U* V D", "y": "N H* W C", "dy": "N H* W C", "dx": "N H* W C", "dw": "U* V D",
    "tw": "U* V D", "ty": "N H* W C",
}  # fmt: skip
PARAMS = ("w",)
TRAINS = "behind"
BIAS = "w"
ALIASES = {"dx": "dy"}


@declare(SHAPES, items="N H W C", writes="y", derive=fits)
def forward(t, y, x, w):
    """Output y = x + w, (N, H, W, C), from x, (N, H, W, C), and w, (U, V, D)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    y[n, h, col, c] = x[n, h, col, c] + w[along(h, w.shape[0]), along(col, w.shape[1]), along(c, w.shape[2])]


@declare(SHAPES, items="U V D", writes="dw", derive=fits, sums="N", adds="N")
def grad_w(t, dw, dy):
    """Gradient of w, (U, V, D): Σ dy, (N, H, W, C), over n and the axes along which w has length 1."""
    # forward: y = x + w
    rest, d = divmod(t, dw.shape[2])
    u, v = divmod(rest, dw.shape[1])
    total = dw.dtype.type(0)
    for n in range(dy.shape[0]):
        for h in range(along(u, dw.shape[0]), behind(u, dw.shape[0], dy.shape[1])):
            for col in range(along(v, dw.shape[1]), behind(v, dw.shape[1], dy.shape[2])):
                for c in range(along(d, dw.shape[2]), behind(d, dw.shape[2], dy.shape[3])):
                    total += dy[n, h, col, c]
    dw[u, v, d] = total


@declare(SHAPES, items="N H W C", writes="ty", derive=fits)
def tangent_w(t, ty, tw):
    """Tangent ty, (N, H, W, C), that follows from tw, (U, V, D), alone; N, H, W and C must be given."""
    # forward: y = x + w
    rest, c = divmod(t, ty.shape[3])
    rest, col = divmod(rest, ty.shape[2])
    n, h = divmod(rest, ty.shape[1])
    ty[n, h, col, c] = tw[along(h, tw.shape[0]), along(col, tw.shape[1]), along(c, tw.shape[2])]


TANGENT = ("tx", tangent_w)  # ty = tx + tw


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.add_weight(name, x, [(1, n)[pick(0, 1)] for n in g.shape(x)[1:]])
