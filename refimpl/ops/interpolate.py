"""A map in another size: y[n,p,q,c] is x at row r(p) and column s(q), at the nearest one or linear between neighbours.

Along rows, with scale = P/H or as it is given (columns alike), a line that is cut off at the first and the last row:

    grid 0, half of a pixel:  r(p) = (p + ½)/scale − ½       grid 1, corners on corners:  r(p) = p·(H − 1)/(P − 1)
    grid 2, asymmetric:  r(p) = p/scale

rounding, for the nearest: 0 half down, 1 half up, 2 down, 3 up. With dy = ∂L/∂y, dx[n,h,w,c] = Σ dy[n,p,q,c] times the
share that x[n,h,w,c] has in y[n,p,q,c]. Places are whole numbers over a common denominator, so nothing is rounded.
Dimensions: N samples, H W input rows and columns, C channels, P Q output rows and columns. Any float dtype.
"""

import numpy as np

from ..kernels.kernel import helper
from ..kernels.passes import Bound, ShapeError, declare
from ..kernels.resizing import drawn_sizes, limited, line, resized

SHAPES = {"x": "N H W C", "y": "N P Q C", "dy": "N P Q C", "dx": "N H W C"}
CHANNELS = "kept"


def derive(sizes, attrs):
    """P and Q: what `size` says, or ⌊H·scale⌋ and ⌊W·scale⌋; ShapeError where that is none, or a setting is unknown."""
    if not 0 <= attrs.get("rounding", 0) <= 3:
        raise ShapeError(f"rounding must be 0 to 3, got {attrs['rounding']}")
    return resized(sizes, attrs)


def drawn(pick, large):
    """A map of any size, in another size or by a scale."""
    letters, attrs = drawn_sizes(pick, large)
    attrs |= {"smooth": bool(pick(0, 1)), "rounding": pick(0, 3)}
    return letters | derive(letters, attrs), attrs


@helper
def nearest(top, bottom, size, rounding):
    """The index of `size` nearest to the place top/bottom."""
    if rounding == 0:
        index = -((bottom - 2 * top) // (2 * bottom))
    elif rounding == 1:
        index = (2 * top + bottom) // (2 * bottom)
    elif rounding == 2:
        index = top // bottom
    else:
        index = -(-top // bottom)
    return limited(index, size - 1)


@helper
def between(top, bottom, size):
    """The index of `size` before the place top/bottom, and how far behind it the place is, over bottom."""
    index = top // bottom
    if index < 0:
        return 0, 0
    if index >= size - 1:
        return size - 1, 0
    return index, top - index * bottom


@helper
def readers(h, size, out, a, b, c):
    """The first and the end of the indices p, of `out`, whose places may lie less than 1 from h.

    What is cut off before the first row reads the second one too, with a share of 0.
    """
    if a == 0:
        return 0, out
    first = 0 if h < 2 else limited(((h - 1) * c - b) // a, out)
    end = out if h == size - 1 else limited(1 - (b - (h + 1) * c) // a, out)
    return first, end


def pairs(axis):
    """How often each row (axis 0) or column (axis 1) of x is read, by which items of its gradient cost alike."""

    def classes(sizes, attrs):
        (size, out), settings = ("HP", "WQ")[axis], [attrs[name][axis] for name in ("size", "scale", "grid")]
        a, b, c = line(sizes[size], sizes[out], *settings)
        places = [a * p + b for p in range(sizes[out])]
        if attrs["smooth"]:
            low = np.array([between(top, c, sizes[size])[0] for top in places])
            read = np.concatenate([low, np.minimum(low + 1, sizes[size] - 1)])
        else:
            read = np.array([nearest(top, c, sizes[size], attrs["rounding"]) for top in places])
        return np.bincount(read, minlength=sizes[size])

    return classes


@declare(SHAPES, items="N P Q C", writes="y", derive=derive)
def forward(t, y, x, size=(0, 0), scale=((1, 1), (1, 1)), smooth=False, grid=(0, 0), rounding=0):
    """Output y, (N, P, Q, C), of x, (N, H, W, C): the nearest element, or a mean of four."""
    rest, c = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    a, b, over = line(x.shape[1], y.shape[1], size[0], scale[0], grid[0])
    top = a * p + b
    a, b, across = line(x.shape[2], y.shape[2], size[1], scale[1], grid[1])
    left = a * q + b
    if smooth:
        float_ = y.dtype.type
        h, down = between(top, over, x.shape[1])
        col, right = between(left, across, x.shape[2])
        below, beside = limited(h + 1, x.shape[1] - 1), limited(col + 1, x.shape[2] - 1)
        upper = float_((across - right) / across) * x[n, h, col, c] + float_(right / across) * x[n, h, beside, c]
        lower = (
            float_((across - right) / across) * x[n, below, col, c] + float_(right / across) * x[n, below, beside, c]
        )
        y[n, p, q, c] = float_((over - down) / over) * upper + float_(down / over) * lower
    else:
        h, col = nearest(top, over, x.shape[1], rounding), nearest(left, across, x.shape[2], rounding)
        y[n, p, q, c] = x[n, h, col, c]


@declare(SHAPES, items="N H W C", writes="dx", derive=derive, alike={"H": pairs(0), "W": pairs(1)})
def grad_x(t, dx, dy, size=(0, 0), scale=((1, 1), (1, 1)), smooth=False, grid=(0, 0), rounding=0):
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, C). H and W must be given: several sizes give one P."""
    # forward: y[n,p,q,c] is x at the place of p and q, the nearest or linear between its neighbours
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    a, b, over = line(dx.shape[1], dy.shape[1], size[0], scale[0], grid[0])
    u, v, across = line(dx.shape[2], dy.shape[2], size[1], scale[1], grid[1])
    first, end = readers(h, dx.shape[1], dy.shape[1], a, b, over)
    start, stop = readers(col, dx.shape[2], dy.shape[2], u, v, across)
    total = dx.dtype.type(0)
    for p in range(first, end):
        if smooth:
            low, down = between(a * p + b, over, dx.shape[1])
            for row in range(2):  # of the two rows that it reads
                if h == limited(low + row, dx.shape[1] - 1):
                    vertical = down if row else over - down
                    for q in range(start, stop):
                        left, right = between(u * q + v, across, dx.shape[2])
                        for side in range(2):
                            if col == limited(left + side, dx.shape[2] - 1):
                                share = (vertical / over) * ((right if side else across - right) / across)
                                total += dx.dtype.type(share) * dy[n, p, q, c]
        elif h == nearest(a * p + b, over, dx.shape[1], rounding):
            for q in range(start, stop):
                if col == nearest(u * q + v, across, dx.shape[2], rounding):
                    total += dy[n, p, q, c]
    dx[n, h, col, c] = total


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # tx in the other size
