"""Maximum of each window in whole numbers: y[n,p,q,c] = max_{r,s} x[n, p·stride − top + r, q·stride − left + s, c].

y has the scale of x, for a scale is above 0; then it is saturated at low and high. Taps outside the map are skipped.
What backward keeps is the place of the maximum in its window as in `max_pool`, the first in row order, and one bit:
dx[n,h,w,c] = Σ of dy[n,p,q,c] over the windows whose maximum is at (h, w) and of which low < y < high.
Dimensions: N samples, H W input rows and columns, C channels, R S window, P Q output rows and columns, B bytes of mask.
"""

from ..kernels.geometry import POOL_MAP, POOL_OUT, drawn_pool, mask_of, pool_derive
from ..kernels.passes import ShapeError, declare
from ..kernels.requantize import saturated
from ..kernels.rounding import inner, passes_bit

SHAPES = {
    "x": "int8: N H W C", "y": "int8: N P Q C", "mask": "uint8: N B", "argmax": "uint8: N P Q C", "dy": "N P Q C",
    "dx": "N H W C",
}  # fmt: skip
mask_bytes, BYTES = mask_of("P", "Q", "C")
drawn = drawn_pool


def derive(sizes, attrs):
    """P, Q and B; ShapeError also where the place in the window does not fit into one byte."""
    rows, columns = attrs["window"]
    if rows * columns > 256:
        raise ShapeError(f"window {attrs['window']} has {rows * columns} taps, but a maximum is kept in one byte: 256")
    found = pool_derive(sizes, attrs)
    return found | mask_bytes(sizes | found, attrs)


@declare(SHAPES, items="N P Q C", writes="y", derive=pool_derive, alike=POOL_OUT)
def forward(t, y, x, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0)), low=-128, high=127):
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
                    best = value if first or value > best else best
                    first = False
    y[n, p, q, c] = saturated(best, low, high, y)


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
def grad_x(t, dx, dy, argmax, mask, window=(2, 2), stride=(2, 2), pad=((0, 0), (0, 0))):
    """Gradient of x, (N, H, W, C), from dy and argmax, (N, P, Q, C), and mask, (N, B).

    H and W must be given: several sizes give one P.
    """
    # forward: y[n,p,q,c] = saturated(x at the tap argmax[n,p,q,c] of its window)
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
                    passes = passes_bit(mask, n, (p * dy.shape[2] + q) * dy.shape[3] + c)
                    value = value if passes else zero
                    total += value if argmax[n, p, q, c] == r * window[1] + s else zero
    dx[n, h, col, c] = total
