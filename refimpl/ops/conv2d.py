"""2-D convolution (cross-correlation) with stride, dilation, groups, asymmetric padding and bias.

    y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n, p·stride − top + r·dilation, q·stride − left + s·dilation, g·C/G + c]·w[r,s,c,k]

where g = ⌊k / (K/G)⌋ is the group of output channel k, and taps outside the map count as zero and are skipped.
With dy = ∂L/∂y, dx, dw and db sum the same products over the other indices. Along a direction, with ∗ for the sum
above, ty = tx ∗ w + x ∗ tw + tb.
Dimensions: N samples, H W input rows and columns, C input channels, K output channels, R S kernel rows and columns,
P Q output rows and columns, G groups (G = C is depthwise). Any float dtype.
"""

from ..kernels.geometry import CONV_MAP, CONV_OUT, CONV_TAP, conv_derive
from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N H W C", "w": "R S C/G K", "b": "K", "y": "N P Q K",
    "dy": "N P Q K", "dx": "N H W C", "dw": "R S C/G K", "db": "K",
    "ty": "N P Q K", "tb": "K",
}  # fmt: skip
PARAMS = ("w", "b")
TRAINS = "counted"
BIAS = "b"
SCALES = ("w", "b")
CHANNELS = "made"


@declare(SHAPES, items="N P Q K", writes="y", derive=conv_derive, alike=CONV_OUT, sums="C/G")
def forward(t, y, x, w, b=None, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Output y, (N, P, Q, K), from x, (N, H, W, C), w, (R, S, C/G, K), and b, (K,)."""
    rest, k = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    depth = w.shape[2]
    first = k // (w.shape[3] * depth // x.shape[3]) * depth  # first input channel of k's group
    total = b[k] if b.shape[0] else y.dtype.type(0)
    for r in range(w.shape[0]):
        h = p * stride[0] - pad[0][0] + r * dilation[0]
        if 0 <= h < x.shape[1]:
            for s in range(w.shape[1]):
                col = q * stride[1] - pad[1][0] + s * dilation[1]
                if 0 <= col < x.shape[2]:
                    for c in range(depth):
                        total += x[n, h, col, first + c] * w[r, s, c, k]
    y[n, p, q, k] = total


@declare(SHAPES, items="N H W C", writes="dx", derive=conv_derive, alike=CONV_MAP, sums="K/G")
def grad_x(t, dx, dy, w, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, K), and w, (R, S, C/G, K).

    H and W (and G) must be given: several sizes give one P.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    depth = w.shape[2]
    width = w.shape[3] * depth // dx.shape[3]  # output channels of a group
    first = c // depth * width
    total = dx.dtype.type(0)
    for r in range(w.shape[0]):
        p, off = divmod(h + pad[0][0] - r * dilation[0], stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            for s in range(w.shape[1]):
                q, off = divmod(col + pad[1][0] - s * dilation[1], stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    for k in range(first, first + width):
                        total += dy[n, p, q, k] * w[r, s, c % depth, k]
    dx[n, h, col, c] = total


@declare(SHAPES, items="R S C/G K", writes="dw", derive=conv_derive, alike=CONV_TAP, sums="N", adds="N")
def grad_w(t, dw, dy, x, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of w, (R, S, C/G, K), from dy, (N, P, Q, K), and x, (N, H, W, C).

    R and S (and G) must be given: several sizes give one P.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, k = divmod(t, dw.shape[3])
    rest, c = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    depth = dw.shape[2]
    channel = k // (dw.shape[3] * depth // x.shape[3]) * depth + c
    total = dw.dtype.type(0)
    for n in range(x.shape[0]):
        for p in range(dy.shape[1]):
            h = p * stride[0] - pad[0][0] + r * dilation[0]
            if 0 <= h < x.shape[1]:
                for q in range(dy.shape[2]):
                    col = q * stride[1] - pad[1][0] + s * dilation[1]
                    if 0 <= col < x.shape[2]:
                        total += x[n, h, col, channel] * dy[n, p, q, k]
    dw[r, s, c, k] = total


@declare(SHAPES, items="K", writes="db", sums="N P Q", adds="N P Q")
def grad_b(t, db, dy):
    """Gradient of b, (K,): Σ_{n,p,q} dy, from dy, (N, P, Q, K)."""
    # forward: y[n,p,q,k] = b[k] + Σ x·w
    total = db.dtype.type(0)
    for n in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                total += dy[n, p, q, t]
    db[t] = total


@declare(SHAPES, items="N P Q K", writes="ty")
def tangent_b(t, ty, tb):
    """Tangent ty, (N, P, Q, K), that follows from tb, (K,), alone; P and Q must be given."""
    # forward: y[n,p,q,k] = b[k] + Σ x·w
    rest, k = divmod(t, ty.shape[3])
    rest, q = divmod(rest, ty.shape[2])
    n, p = divmod(rest, ty.shape[1])
    ty[n, p, q, k] = tb[k]


TANGENT = (  # ty = tx ∗ w + x ∗ tw + tb
    Bound(forward, {"y": "ty", "x": "tx", "b": "tb"}),
    Bound(forward, {"y": "ty", "w": "tw", "b": "tb"}),
    tangent_b,
)
