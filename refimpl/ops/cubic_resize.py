"""A map in another size by a filter: y[n,p,q,c] = Σ A[p,h]·B[q,w]·x[n,h,w,c], over rows h and columns w around a place.

The place r(p) of a row is that of `interpolate` (size, scale and grid are as there), columns alike. Rows beyond the
first and the last are those; A[p,h] = k((h − r(p))/s) / Σ_h k((h − r(p))/s), with s = 1, or, where `shrink` and a map
becomes smaller, s = H/P: a filter as wide as what it stands for (antialiasing). With d = |distance| and a = `bend`:

    cubic:  k(d) = (a + 2)d³ − (a + 3)d² + 1 up to 1, a·(d³ − 5d² + 8d − 4) up to 2, else 0       linear:  1 − d up to 1

`exclude`: rows beyond the map have no share. `reach`: rows and columns on either side, ⌈2s⌉ for cubic, ⌈s⌉ for linear.
With dy = ∂L/∂y, dx[n,h,w,c] = Σ A[p,h]·B[q,w]·dy[n,p,q,c].
Dimensions: N samples, H W input rows and columns, C channels, P Q output rows and columns. Any float dtype.
"""

from ..kernels.kernel import helper
from ..kernels.passes import Bound, ShapeError, declare
from ..kernels.resizing import drawn_sizes, limited, line, resized

SHAPES = {"x": "N H W C", "y": "N P Q C", "dy": "N P Q C", "dx": "N H W C"}
CHANNELS = "kept"
ONCE = ((1, 1), (1, 1))


def reaches(sizes, attrs):
    """`reach` of rows and columns of these sizes H, W, P and Q."""
    found = []
    for axis, (size, out) in enumerate(("HP", "WQ")):
        over, under = attrs["scale"][axis]
        if attrs["size"][axis]:
            over, under = sizes[out], sizes[size]
        most = max(over, under) if attrs["shrink"] else over
        found.append(-(-(2 if attrs["cubic"] else 1) * most // over))
    return tuple(found)


def derive(sizes, attrs):
    """P and Q, as of `interpolate`; ShapeError where `reach` is another."""
    found = resized(sizes, attrs)
    if "reach" in attrs and {"H", "W"} <= sizes.keys() and attrs["reach"] != (own := reaches(sizes | found, attrs)):
        raise ShapeError(f"reach must be {own} for H={sizes['H']} and W={sizes['W']}, got {attrs['reach']}")
    return found


def drawn(pick, large):
    """A map of any size, in another size or by a scale, by any of the filters."""
    letters, attrs = drawn_sizes(pick, large)
    attrs |= {
        "cubic": bool(pick(0, 1)),
        "bend": -pick(2, 3) / 4,
        "shrink": bool(pick(0, 1)),
        "exclude": bool(pick(0, 1)),
    }
    letters |= resized(letters, attrs)
    return letters, attrs | {"reach": reaches(letters, attrs)}


@helper
def filter_at(distance, cubic, bend):
    """k at a distance."""
    d = distance if distance > 0 else -distance
    if not cubic:
        return 1 - d if d < 1 else 0.0
    if d < 1:
        return ((bend + 2) * d - (bend + 3)) * d * d + 1
    return (((d - 5) * d + 8) * d - 4) * bend if d < 2 else 0.0


@helper
def width_of(size, out, given, scale, shrink):
    """s, along an axis."""
    over, under = scale[0], scale[1]
    if given > 0:
        over, under = out, size
    return under / over if shrink and under > over else 1.0


@helper
def share_of(index, place, size, width, cubic, bend, exclude):
    """What an index counts at a place, before all are divided by their sum."""
    if exclude and (index < 0 or index >= size):
        return 0.0
    return filter_at((index - place) / width, cubic, bend)


@helper
def sum_of(first, count, place, size, width, cubic, bend, exclude):
    """The sum of `share_of` over `count` indices from the first one on."""
    total = 0.0
    for index in range(first, first + count):
        total += share_of(index, place, size, width, cubic, bend, exclude)
    return total


def readers(axis):
    """How often each row (axis 0) or column (axis 1) of x is read, by which items of its gradient cost alike."""

    def classes(sizes, attrs):
        size, out = ("HP", "WQ")[axis]
        a, b, c = line(sizes[size], sizes[out], *(attrs[name][axis] for name in ("size", "scale", "grid")))
        read, reach = [0] * sizes[size], attrs["reach"][axis]
        for p in range(sizes[out]):
            first = (a * p + b) // c - reach + 1
            for index in range(first, first + 2 * reach):
                read[limited(index, sizes[size] - 1)] += 1
        return read

    return classes


@declare(SHAPES, items="N P Q C", writes="y", derive=derive)
def forward(
    t, y, x, size=(0, 0), scale=ONCE, grid=(0, 0), reach=(2, 2), cubic=True, bend=-0.75, shrink=False, exclude=False
):  # fmt: skip
    """Output y, (N, P, Q, C), of x, (N, H, W, C): weighted sums around each place."""
    rest, c = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    float_, height, columns = y.dtype.type, x.shape[1], x.shape[2]
    a, b, over = line(height, y.shape[1], size[0], scale[0], grid[0])
    top, down = (a * p + b) // over - reach[0] + 1, (a * p + b) / over
    a, b, over = line(columns, y.shape[2], size[1], scale[1], grid[1])
    left, right = (a * q + b) // over - reach[1] + 1, (a * q + b) / over
    tall = width_of(height, y.shape[1], size[0], scale[0], shrink)
    wide = width_of(columns, y.shape[2], size[1], scale[1], shrink)
    whole = sum_of(top, 2 * reach[0], down, height, tall, cubic, bend, exclude) * sum_of(
        left, 2 * reach[1], right, columns, wide, cubic, bend, exclude
    )
    total = float_(0)
    for h in range(top, top + 2 * reach[0]):
        vertical = share_of(h, down, height, tall, cubic, bend, exclude) / whole
        for col in range(left, left + 2 * reach[1]):
            share = vertical * share_of(col, right, columns, wide, cubic, bend, exclude)
            total += float_(share) * x[n, limited(h, height - 1), limited(col, columns - 1), c]
    y[n, p, q, c] = total


@declare(SHAPES, items="N H W C", writes="dx", derive=derive, alike={"H": readers(0), "W": readers(1)})
def grad_x(
    t, dx, dy, size=(0, 0), scale=ONCE, grid=(0, 0), reach=(2, 2), cubic=True, bend=-0.75, shrink=False, exclude=False
):  # fmt: skip
    """Gradient of x, (N, H, W, C), from dy, (N, P, Q, C). H and W must be given: several sizes give one P."""
    # forward: y[n,p,q,c] = Σ A[p,h]·B[q,w]·x[n,h,w,c]
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    float_, height, columns = dx.dtype.type, dx.shape[1], dx.shape[2]
    a, b, over = line(height, dy.shape[1], size[0], scale[0], grid[0])
    u, v, across = line(columns, dy.shape[2], size[1], scale[1], grid[1])
    tall = width_of(height, dy.shape[1], size[0], scale[0], shrink)
    wide = width_of(columns, dy.shape[2], size[1], scale[1], shrink)
    total = float_(0)
    for p in range(dy.shape[1]):
        top, down = (a * p + b) // over - reach[0] + 1, (a * p + b) / over
        for row in range(top, top + 2 * reach[0]):
            if limited(row, height - 1) == h:
                vertical = share_of(row, down, height, tall, cubic, bend, exclude) / sum_of(
                    top, 2 * reach[0], down, height, tall, cubic, bend, exclude
                )
                for q in range(dy.shape[2]):
                    left, right = (u * q + v) // across - reach[1] + 1, (u * q + v) / across
                    for place in range(left, left + 2 * reach[1]):
                        if limited(place, columns - 1) == col:
                            share = share_of(place, right, columns, wide, cubic, bend, exclude) / sum_of(
                                left, 2 * reach[1], right, columns, wide, cubic, bend, exclude
                            )
                            total += float_(vertical * share) * dy[n, p, q, c]
    dx[n, h, col, c] = total


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # tx in the other size
