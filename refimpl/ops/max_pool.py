"""Maximum of each window: y[n,p,q,c] = max_{r,s} x[n, p·stride − top + r, q·stride − left + s, c].

Taps outside the map are skipped. What backward keeps is the place of the maximum in its window, r·S + s in one byte:
the first maximum in row order, or the last NaN, which wins over every number. With dy = ∂L/∂y,
dx[n,h,w,c] = Σ of dy[n,p,q,c] over the windows whose maximum is at (h, w).
Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns. Any float dtype.
"""

from ..kernels.geometry import POOL_MAP, POOL_OUT, drawn_pool, pool_derive
from ..kernels.passes import ShapeError, declare

SHAPES = {
    "x": "N H W C", "y": "N P Q C", "argmax": "uint8: N P Q C", "dy": "N P Q C", "dx": "N H W C",
    "tx": "N H W C", "ty": "N P Q C",
}  # fmt: skip
CHANNELS = "kept"
drawn = drawn_pool


def derive(sizes, attrs):
    """P and Q; ShapeError also where the place in the window does not fit into one byte."""
    rows, columns = attrs["window"]
    if rows * columns > 256:
        raise ShapeError(f"window {attrs['window']} has {rows * columns} taps, but a maximum is kept in one byte: 256")
    return pool_derive(sizes, attrs)


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
                    if first or ((value > best) | (value != value)):
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
                    if first or ((value > best) | (value != value)):
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
    total = dx.dtype.type(0)
    zero = dx.dtype.type(0)
    for r in range(window[0]):
        p, off = divmod(h + pad[0][0] - r, stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            for s in range(window[1]):
                q, off = divmod(col + pad[1][0] - s, stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    value = dy[n, p, q, c]  # read always: the work does not depend on the data
                    total += value if argmax[n, p, q, c] == r * window[1] + s else zero
    dx[n, h, col, c] = total


@declare(SHAPES, items="N P Q C", writes="ty", derive=derive, alike=POOL_OUT)
def tangent(t, ty, tx, argmax, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0))):
    """Tangent ty, (N, P, Q, C): that of x, tx, (N, H, W, C), at the place of each maximum, argmax, (N, P, Q, C)."""
    # forward: y[n,p,q,c] = x at the tap argmax[n,p,q,c] of its window
    rest, c = divmod(t, ty.shape[3])
    rest, q = divmod(rest, ty.shape[2])
    n, p = divmod(rest, ty.shape[1])
    place = argmax[n, p, q, c]
    found = ty.dtype.type(0)
    for r in range(window[0]):
        h = p * stride[0] - pad[0][0] + r
        if 0 <= h < tx.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] - pad[1][0] + s
                if 0 <= col < tx.shape[2]:
                    value = tx[n, h, col, c]  # read always: the work does not depend on the data
                    found = value if place == r * window[1] + s else found
    ty[n, p, q, c] = found


TANGENT = (tangent,)
