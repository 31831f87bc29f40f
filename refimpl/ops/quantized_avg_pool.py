"""Mean of each window in whole numbers, as TensorFlow Lite's AVERAGE_POOL of int8: y has the scale of x.

    y[n,p,q,c] = saturated(Σ_{r,s} x[n, p·stride − top + r, q·stride − left + s, c] / count, low, high)

rounded to the nearest, a half away from zero. Taps outside the map are skipped and `count` is the number of those
inside; where `count_include_pad` (which TensorFlow Lite has not; our reading), taps in the padding, but for its last
`overhang` rows and columns, count too, each as the zero point x_zero. The gradient of the whole numbers, with rounding
taken for the identity, is dx[n,h,w,c] = Σ dy[n,p,q,c]/count over the windows that hold (h, w) and of which
low < y < high: a bit an element is kept.
Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns,
B bytes of mask.
"""

import numpy as np

from ..kernels.geometry import POOL_MAP, POOL_OUT, counted_taps, drawn_pool, mask_of, pool_derive
from ..kernels.passes import declare
from ..kernels.requantize import saturated
from ..kernels.rounding import inner, passes_bit

SHAPES = {
    "x": "int8: N H W C", "y": "int8: N P Q C", "mask": "uint8: N B", "dy": "N P Q C", "dx": "N H W C",
}  # fmt: skip
mask_bytes, BYTES = mask_of("P", "Q", "C")
drawn = drawn_pool


def derive(sizes, attrs):
    """P, Q and B."""
    found = pool_derive(sizes, attrs)
    return found | mask_bytes(sizes | found, attrs)


@declare(SHAPES, items="N P Q C", writes="y", derive=pool_derive, alike=POOL_OUT)
def forward(
    t, y, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), count_include_pad=True, overhang=(0, 0), x_zero=0,
    low=-128, high=127,
):  # fmt: skip
    """Output y, (N, P, Q, C), the mean of each window of x, (N, H, W, C)."""
    rest, c = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    total = np.int32(0)
    inside = 0
    for r in range(window[0]):
        h = p * stride[0] - pad[0][0] + r
        if 0 <= h < x.shape[1]:
            for s in range(window[1]):
                col = q * stride[1] - pad[1][0] + s
                if 0 <= col < x.shape[2]:
                    total += np.int32(x[n, h, col, c])
                    inside += 1
    rows = counted_taps(p * stride[0] - pad[0][0], window[0], x.shape[1], pad[0], overhang[0], count_include_pad)
    columns = counted_taps(q * stride[1] - pad[1][0], window[1], x.shape[2], pad[1], overhang[1], count_include_pad)
    count = rows * columns
    if count_include_pad:
        total += (count - inside) * x_zero
    half = count // 2
    mean = (total + (half if total >= 0 else count - 1 - half)) // count
    y[n, p, q, c] = saturated(mean, low, high, y)


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=BYTES)
def pack_mask(t, mask, y, low=-128, high=127):
    """Mask of y, (N, P, Q, C), as bytes, (N, B), with a bit for each of eight elements, set where y is at no end."""
    n, b = divmod(t, mask.shape[1])
    count = y.shape[1] * y.shape[2] * y.shape[3]
    end = 8 * b + 8 if 8 * b + 8 < count else count
    byte = 0
    for e in range(8 * b, end):
        rest, c = divmod(e, y.shape[3])
        p, q = divmod(rest, y.shape[2])
        if inner(y[n, p, q, c], low, high):
            byte |= 1 << (e - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N H W C", writes="dx", derive=derive, alike=POOL_MAP)
def grad_x(
    t, dx, dy, mask, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), count_include_pad=True, overhang=(0, 0)
):
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, C), and mask, (N, B).

    H and W must be given: several sizes give one P.
    """
    # forward: y[n,p,q,c] = saturated(Σ_{r,s} x[n, p·stride − top + r, q·stride − left + s, c] / count)
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    total = dx.dtype.type(0)
    zero = dx.dtype.type(0)
    for r in range(window[0]):
        p, off = divmod(h + pad[0][0] - r, stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            rows = counted_taps(h - r, window[0], dx.shape[1], pad[0], overhang[0], count_include_pad)
            for s in range(window[1]):
                q, off = divmod(col + pad[1][0] - s, stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    columns = counted_taps(col - s, window[1], dx.shape[2], pad[1], overhang[1], count_include_pad)
                    value = dy[n, p, q, c] / dx.dtype.type(rows * columns)
                    at = (p * dy.shape[2] + q) * dy.shape[3] + c
                    total += value if passes_bit(mask, n, at) else zero
    dx[n, h, col, c] = total
