"""Maximum of each window of whole numbers that share an exponent, which stays: y and argmax as in `max_pool`.

dx[n,h,w,c] is dy[n,p,q,c] where (h, w) is the maximum of its window, else 0. Our reading: windows do not overlap, so
that it needs no sum, which might leave 8 bits.
Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns.
"""

from ..kernels.geometry import POOL_MAP, POOL_OUT, drawn_pool
from ..kernels.passes import ShapeError, declare
from . import max_pool

SHAPES = {
    "x": "int8: N H W C", "y": "int8: N P Q C", "argmax": "uint8: N P Q C", "dy": "int8: N P Q C",
    "dx": "int8: N H W C",
}  # fmt: skip
CHANNELS = "kept"


def derive(sizes, attrs):
    """P and Q; ShapeError where windows overlap, or a place in one does not fit into a byte."""
    if any(side > step for side, step in zip(attrs["window"], attrs["stride"], strict=True)):
        raise ShapeError(
            f"windows of {attrs['window']} at strides of {attrs['stride']} overlap, and gradients of 8 bits cannot be "
            f"summed: a stride of at least {attrs['window']} would do"
        )
    return max_pool.derive(sizes, attrs)


def drawn(pick, large):
    """Windows that do not overlap."""
    letters, attrs = drawn_pool(pick, large)
    while any(side > step for side, step in zip(attrs["window"], attrs["stride"], strict=True)):
        letters, attrs = drawn_pool(pick, large)
    return letters, attrs


@declare(SHAPES, items="N P Q C", writes="y", derive=derive, alike=POOL_OUT)
def forward(t, y, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0))):
    """Output y, (N, P, Q, C), the maximum of each window of x, (N, H, W, C)."""
    rest, c = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    first = True
    best = y.dtype.type(0)
    for r in range(window[0]):
        h = p * stride[0] - pad[0][0] + r
        if 0 <= h < x.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] - pad[1][0] + s
                if 0 <= col < x.shape[2]:
                    value = x[n, h, col, c]
                    if first or value > best:
                        best = value
                    first = False
    y[n, p, q, c] = best


@declare(SHAPES, items="N P Q C", writes="argmax", derive=derive, alike=POOL_OUT)
def argmax(t, argmax, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0))):
    """Place of each maximum, (N, P, Q, C), in its window of x, (N, H, W, C): r·S + s of its tap. For training only."""
    rest, c = divmod(t, argmax.shape[3])
    rest, q = divmod(rest, argmax.shape[2])
    n, p = divmod(rest, argmax.shape[1])
    first = True
    best = x.dtype.type(0)
    place = 0
    for r in range(window[0]):
        h = p * stride[0] - pad[0][0] + r
        if 0 <= h < x.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] - pad[1][0] + s
                if 0 <= col < x.shape[2]:
                    value = x[n, h, col, c]
                    if first or value > best:
                        best = value
                        place = r * window[1] + s
                    first = False
    argmax[n, p, q, c] = place


@declare(SHAPES, items="N H W C", writes="dx", derive=derive, alike=POOL_MAP)
def grad_x(t, dx, dy, argmax, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0))):
    """Gradient of x, (N, H, W, C), from dy and argmax, (N, P, Q, C).

    H and W must be given: several sizes give one P.
    """
    # forward: y[n,p,q,c] = x at the tap argmax[n,p,q,c] of its window
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    found = dx.dtype.type(0)
    for r in range(window[0]):
        p, off = divmod(h + pad[0][0] - r, stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            for s in range(window[1]):
                q, off = divmod(col + pad[1][0] - s, stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    value = dy[n, p, q, c]  # read always: the work does not depend on the data
                    found = value if argmax[n, p, q, c] == r * window[1] + s else found
    dx[n, h, col, c] = found
