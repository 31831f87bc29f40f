"""Maps in another size, a pixel at a time: places along the axes in the outer loops, channels in the inner one.

Letters as in `ops.interpolate`, whose helpers tell where a pixel comes from and who reads it. rows, columns: numbers a,
b and c of the places (a·p + b) / c along each axis (`ops.interpolate.line`).
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes
from ...kernels.kernel import fast
from ...ops.interpolate import between, limited, nearest, readers


@executes(lambda y, x, rows, columns, smooth, rounding: (MUL * 6 + ADD * 3) * y.size if smooth else NOTHING)
@fast
def forward(y, x, rows, columns, smooth, rounding):
    """Output y, (N, P, Q, C), of x, (N, H, W, C): the nearest element, or a mean of four."""
    height, across, width, high, wide = y.shape[1], y.shape[2], y.shape[3], x.shape[1], x.shape[2]
    float_ = y.dtype.type
    a, b, over = rows
    u, v, under = columns
    for t in prange(y.shape[0] * height):
        n, p = np.int64(t) // height, np.int64(t) % height
        top = a * p + b
        for q in range(across):
            left = u * q + v
            if smooth:
                h, down = between(top, over, high)
                col, right = between(left, under, wide)
                below, beside = limited(h + 1, high - 1), limited(col + 1, wide - 1)
                upper_share, lower_share = float_((over - down) / over), float_(down / over)
                left_share, right_share = float_((under - right) / under), float_(right / under)
                for c in range(width):
                    upper = left_share * x[n, h, col, c] + right_share * x[n, h, beside, c]
                    lower = left_share * x[n, below, col, c] + right_share * x[n, below, beside, c]
                    y[n, p, q, c] = upper_share * upper + lower_share * lower
            else:
                h, col = nearest(top, over, high, rounding), nearest(left, under, wide, rounding)
                for c in range(width):
                    y[n, p, q, c] = x[n, h, col, c]


def reads(size: int, out: int, along: tuple[int, int, int], smooth: bool, rounding: int) -> int:
    """How often a gradient's rows, `size` of them, read one of the `out` rows of dy."""
    (a, b, c), total = along, 0
    for h in range(size):
        for p in range(*readers(h, size, out, a, b, c)):
            if smooth:
                low, _ = between(a * p + b, c, size)
                total += sum(h == limited(low + row, size - 1) for row in range(2))
            else:
                total += h == nearest(a * p + b, c, size, rounding)
    return total


def grad_x_executes(dx, dy, rows, columns, smooth, rounding) -> Ops:
    """Each pixel of dy times its share, for each of those that it was made of."""
    pairs = reads(dx.shape[1], dy.shape[1], rows, smooth, rounding)
    pairs *= reads(dx.shape[2], dy.shape[2], columns, smooth, rounding)
    return (MAC if smooth else ADD) * (dx.shape[0] * dx.shape[3] * pairs)


@executes(grad_x_executes)
@fast
def grad_x(dx, dy, rows, columns, smooth, rounding):
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, C): each pixel collects from those that it was read for."""
    high, wide, width, height, across = dx.shape[1], dx.shape[2], dx.shape[3], dy.shape[1], dy.shape[2]
    float_, zero = dx.dtype.type, dx.dtype.type(0)
    a, b, over = rows
    u, v, under = columns
    for t in prange(dx.shape[0] * high):
        n, h = np.int64(t) // high, np.int64(t) % high
        first, end = readers(h, high, height, a, b, over)
        for col in range(wide):
            start, stop = readers(col, wide, across, u, v, under)
            for c in range(width):
                dx[n, h, col, c] = zero
            for p in range(first, end):
                if smooth:
                    low, down = between(a * p + b, over, high)
                    for row in range(2):  # of the two rows that it reads
                        if h == limited(low + row, high - 1):
                            vertical = down if row else over - down
                            for q in range(start, stop):
                                left, right = between(u * q + v, under, wide)
                                for side in range(2):
                                    if col == limited(left + side, wide - 1):
                                        share = (vertical / over) * ((right if side else under - right) / under)
                                        factor = float_(share)
                                        for c in range(width):
                                            dx[n, h, col, c] += factor * dy[n, p, q, c]
                elif h == nearest(a * p + b, over, high, rounding):
                    for q in range(start, stop):
                        if col == nearest(u * q + v, under, wide, rounding):
                            for c in range(width):
                                dx[n, h, col, c] += dy[n, p, q, c]
