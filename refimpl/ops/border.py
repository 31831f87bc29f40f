"""A border around a map: y[n, p, q, k] = x[n, p − top, q − left, k − front], and `value` outside of x.

With dy = ∂L/∂y, dx is the part of dy where x lies.
Dimensions: N samples, H W C rows, columns and channels of x, P Q K those of y. Any float dtype.
"""

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N H W C", "y": "N P Q K", "dy": "N P Q K", "dx": "N H W C", "tx": "N H W C", "ty": "N P Q K"}
AXES = ("HP", "WQ", "CK")


def derive(sizes, attrs):
    """P, Q and K, from H, W and C or the other way; ShapeError where a side is below 0."""
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
    attrs = {"sides": tuple((pick(0, 3), pick(0, 3)) for _ in AXES), "value": pick(-4, 4) / 4}
    return letters | derive(letters, attrs), attrs


def inside_of(axis):
    """Which rows (axis 0), columns (1) or channels (2) of y lie in x."""
    size, out = AXES[axis]

    def classes(sizes, attrs):
        first = attrs["sides"][axis][0]
        return [0 <= p - first < sizes[size] for p in range(sizes[out])]

    return classes


INSIDE = {"P": inside_of(0), "Q": inside_of(1), "K": inside_of(2)}


@declare(SHAPES, items="N P Q K", writes="y", derive=derive, alike=INSIDE)
def forward(t, y, x, sides=((0, 0), (0, 0), (0, 0)), value=0.0):
    """Output y, (N, P, Q, K): x, (N, H, W, C), in a border of `value`."""
    rest, k = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    h, col, c = p - sides[0][0], q - sides[1][0], k - sides[2][0]
    if 0 <= h < x.shape[1] and 0 <= col < x.shape[2] and 0 <= c < x.shape[3]:
        y[n, p, q, k] = x[n, h, col, c]
    else:
        y[n, p, q, k] = y.dtype.type(value)


@declare(SHAPES, items="N H W C", writes="dx", derive=derive)
def grad_x(t, dx, dy, sides=((0, 0), (0, 0), (0, 0))):
    """Gradient of x, (N, H, W, C): its part of dy, (N, P, Q, K)."""
    # forward: y[n, p, q, k] = x[n, p − top, q − left, k − front]
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    dx[n, h, col, c] = dy[n, h + sides[0][0], col + sides[1][0], c + sides[2][0]]


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}, attrs={"value": 0.0}),)  # tx in a border of 0
