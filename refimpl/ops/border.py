"""A border around a map: y[n, p, q, k] = x[n, h(p), w(q), c(k)], h(p) = p − top where that lies in x, w and c alike.

Outside of x y is `value` in mode 0. In the others a line goes on there: 1 with its last element, 2 mirrored at that, 3
from its other end. With dy = ∂L/∂y, dx[n, h, w, c] = Σ dy[n, p, q, k] over what reads it.
Dimensions: N samples, H W C rows, columns and channels of x, P Q K those of y. Any float dtype.
"""

from ..kernels.kernel import helper
from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N H W C", "y": "N P Q K", "dy": "N P Q K", "dx": "N H W C", "tx": "N H W C", "ty": "N P Q K"}
AXES = ("HP", "WQ", "CK")


def derive(sizes, attrs):
    """P, Q and K, from H, W and C or the other way; ShapeError where a side is below 0, or a mode is none."""
    if not 0 <= attrs.get("mode", 0) <= 3:
        raise ShapeError(f"mode must be 0 to 3, got {attrs['mode']}")
    if any(n < 0 for side in attrs["sides"] for n in side):
        raise ShapeError(f"sides must be at least 0 on every side, got {attrs['sides']}")
    found = {}
    for (size, out), side in zip(AXES, attrs["sides"], strict=True):
        if size in sizes:
            found[out] = sizes[size] + side[0] + side[1]
        elif out in sizes:
            found[size] = sizes[out] - side[0] - side[1]
    return found


def drawn(pick, large):
    """A map with a border of any width on each side."""
    most = 24 if large else 5
    letters = {"N": pick(1, most), "H": pick(1, most), "W": pick(1, most), "C": pick(1, 2 * most)}
    attrs = {"sides": tuple((pick(0, 3), pick(0, 3)) for _ in AXES), "value": pick(-4, 4) / 4, "mode": pick(0, 3)}
    return letters | derive(letters, attrs), attrs


def inside_of(axis):
    """Which rows (axis 0), columns (1) or channels (2) of y lie in x."""
    size, out = AXES[axis]

    def classes(sizes, attrs):
        first = attrs["sides"][axis][0]
        return [attrs["mode"] > 0 or 0 <= p - first < sizes[size] for p in range(sizes[out])]

    return classes


def readers_of(axis):
    """By how many of y each row (axis 0), column (1) or channel (2) of x is read."""
    size, out = AXES[axis]

    def classes(sizes, attrs):
        first, mode = attrs["sides"][axis][0], attrs["mode"]
        if mode == 0:
            return [1] * sizes[size]
        read = [read_at(p - first, sizes[size], mode) for p in range(sizes[out])]
        return [read.count(h) for h in range(sizes[size])]

    return classes


@helper
def read_at(index, size, mode):
    """The element of a line of `size` that is read at an index, which may lie outside; mode: 1 to 3."""
    if mode == 3:
        return index % size
    if mode == 2:
        period = 2 * size - 2 if size > 1 else 1
        index = index % period
        return index if index < size else period - index
    index = index if index > 0 else 0
    return index if index < size else size - 1


INSIDE = {"P": inside_of(0), "Q": inside_of(1), "K": inside_of(2)}
READERS = {"H": readers_of(0), "W": readers_of(1), "C": readers_of(2)}


@declare(SHAPES, items="N P Q K", writes="y", derive=derive, alike=INSIDE)
def forward(t, y, x, sides=((0, 0), (0, 0), (0, 0)), value=0.0, mode=0):
    """Output y, (N, P, Q, K): x, (N, H, W, C), in a border."""
    rest, k = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    h, col, c = p - sides[0][0], q - sides[1][0], k - sides[2][0]
    if mode > 0:
        h, col, c = read_at(h, x.shape[1], mode), read_at(col, x.shape[2], mode), read_at(c, x.shape[3], mode)
    if 0 <= h < x.shape[1] and 0 <= col < x.shape[2] and 0 <= c < x.shape[3]:
        y[n, p, q, k] = x[n, h, col, c]
    else:
        y[n, p, q, k] = y.dtype.type(value)


@declare(SHAPES, items="N H W C", writes="dx", derive=derive, alike=READERS)
def grad_x(t, dx, dy, sides=((0, 0), (0, 0), (0, 0)), mode=0):
    """Gradient of x, (N, H, W, C): its part of dy, (N, P, Q, K), or sums of it."""
    # forward: y[n, p, q, k] = x[n, h(p), w(q), c(k)]
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    if mode == 0:
        dx[n, h, col, c] = dy[n, h + sides[0][0], col + sides[1][0], c + sides[2][0]]
        return
    total = dx.dtype.type(0)
    for p in range(dy.shape[1]):
        if read_at(p - sides[0][0], dx.shape[1], mode) == h:
            for q in range(dy.shape[2]):
                if read_at(q - sides[1][0], dx.shape[2], mode) == col:
                    for k in range(dy.shape[3]):
                        if read_at(k - sides[2][0], dx.shape[3], mode) == c:
                            total += dy[n, p, q, k]
    dx[n, h, col, c] = total


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}, attrs={"value": 0.0}),)  # tx in a border, of 0 in mode 0
