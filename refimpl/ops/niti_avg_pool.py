"""Mean of each window of whole numbers that share exponents, by a multiplier of 15 bits in place of a division.

    sums[n,p,q,c] = M·Σ_{r,s} x[n, p·stride + r, q·stride + s, c],    M = ⌊2^15/(R·S) + ½⌋
    y·2^y_e ≈ sums·2^(x_e − 15),    dx·2^dx_e ≈ (M·Σ dy[n,p,q,c] over the windows that hold (h, w))·2^(dy_e − 15)

narrowed by `shared_exponent`. Our reading: NITI's own nets have no means. There is no padding; the window of a whole
map is a global mean. y is rounded to the nearest, dx as the step says.
Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns.
"""

import numpy as np

from ..kernels.geometry import POOL_MAP, POOL_OUT, drawn_pool, out_size, pool_derive
from ..kernels.passes import Bound, ShapeError, declare
from ..kernels.random import ROUNDING
from .shared_exponent import most, narrow, settle

SHAPES = {
    "x": "int8: N H W C", "x_exponent": "int32: 1", "sums": "int32: N P Q C", "sums_most": "int32: N",
    "y_shift": "int32: 1", "y": "int8: N P Q C", "y_exponent": "int32: 1", "dy": "int8: N P Q C",
    "dy_exponent": "int32: 1", "dx_sums": "int32: N H W C", "dx_most": "int32: N", "dx_shift": "int32: 1",
    "dx": "int8: N H W C", "dx_exponent": "int32: 1", "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip
INPUTS = ("x", "x_exponent")
OUTPUTS = ("y", "y_exponent")
CHANNELS = "kept"
HOST = {"step": "update", "seed": "seed"}
STREAM = ROUNDING
POINT = 15  # bits of the multiplier behind its point
MOST_TAPS = 1 << 12  # of a window: M has at least 3 bits then


def derive(sizes, attrs):
    """P and Q; ShapeError where a window has too many taps, or there is padding."""
    rows, columns = attrs["window"]
    if rows * columns > MOST_TAPS:
        raise ShapeError(f"window {attrs['window']} has {rows * columns} taps: it can have at most {MOST_TAPS}")
    if any(n for side in attrs["pad"] for n in side):
        raise ShapeError(f"means in whole numbers have no padding, got pad {attrs['pad']}")
    return pool_derive(sizes, attrs)


def drawn(pick, large):
    """Without padding."""
    letters, attrs = drawn_pool(pick, large)
    for size, out, axis in (("H", "P", 0), ("W", "Q", 1)):
        window, stride = attrs["window"][axis], attrs["stride"][axis]
        letters[size] = max(letters[size], window)
        letters[out] = out_size(letters[size], window, stride, 1, (0, 0))
    return letters, attrs | {"pad": ((0, 0), (0, 0))}


@declare(SHAPES, items="N P Q C", writes="sums", derive=derive, alike=POOL_OUT)
def accumulate(t, sums, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0))):
    """The sums, (N, P, Q, C), of the windows of x, (N, H, W, C), times the multiplier."""
    rest, c = divmod(t, sums.shape[3])
    rest, q = divmod(rest, sums.shape[2])
    n, p = divmod(rest, sums.shape[1])
    total = np.int32(x.dtype.type(0))
    for r in range(window[0]):
        h = p * stride[0] + r
        if h < x.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] + s
                if col < x.shape[2]:
                    total = np.int32(total + np.int32(x[n, h, col, c]))
    taps = window[0] * window[1]
    sums[n, p, q, c] = np.int32(total * ((2 * (1 << POINT) + taps) // (2 * taps)))


@declare(SHAPES, items="N H W C", writes="dx_sums", derive=derive, alike=POOL_MAP)
def grad_x(t, dx_sums, dy, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0))):
    """Sums of the gradient of x, (N, H, W, C), from dy, (N, P, Q, C). H and W must be given."""
    # forward: sums[n,p,q,c] = M·Σ_{r,s} x[n, p·stride + r, q·stride + s, c]
    rest, c = divmod(t, dx_sums.shape[3])
    rest, col = divmod(rest, dx_sums.shape[2])
    n, h = divmod(rest, dx_sums.shape[1])
    total = np.int32(dy.dtype.type(0))
    for r in range(window[0]):
        p, off = divmod(h - r, stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            for s in range(window[1]):
                q, off = divmod(col - s, stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    total = np.int32(total + np.int32(dy[n, p, q, c]))
    taps = window[0] * window[1]
    dx_sums[n, h, col, c] = np.int32(total * ((2 * (1 << POINT) + taps) // (2 * taps)))


BOUND = (
    Bound(most, {"v": "sums", "most": "sums_most"}),
    Bound(
        settle, {
            "most": "sums_most", "shift": "y_shift", "exponent": "y_exponent", "first": "x_exponent", "second": "",
        },
        attrs={"point": POINT},
    ),
    Bound(
        narrow, {"v": "sums", "q": "y", "shift": "y_shift", "step": "", "seed": ""},
        attrs={"stochastic": False, "pseudo": False},
    ),
    Bound(most, {"v": "dx_sums", "most": "dx_most"}),
    Bound(
        settle, {
            "most": "dx_most", "shift": "dx_shift", "exponent": "dx_exponent", "first": "dy_exponent", "second": "",
        },
        attrs={"point": POINT},
    ),
    Bound(narrow, {"v": "dx_sums", "q": "dx", "shift": "dx_shift"}),
)  # fmt: skip
