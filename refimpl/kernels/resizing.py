"""Places of a map in another size: a line r(p) = (a·p + b)/c along rows or columns, in whole numbers."""

from .kernel import helper
from .passes import ShapeError


def resized(sizes, attrs):
    """P and Q: what `size` says, or ⌊H·scale⌋ and ⌊W·scale⌋; ShapeError where that is none, or a grid is unknown."""
    if "grid" in attrs and not all(0 <= n <= 2 for n in attrs["grid"]):
        raise ShapeError(f"grid must be 0 to 2, got {attrs['grid']}")
    found = {}
    for axis, (size, out) in enumerate(("HP", "WQ")):
        over, under = attrs["scale"][axis]
        if min(over, under) < 1 or attrs["size"][axis] < 0:
            raise ShapeError(f"scale must be of numbers above 0 and size of such from 0, got {attrs['scale']}")
        if attrs["size"][axis]:
            found[out] = attrs["size"][axis]
        elif size in sizes:
            found[out] = sizes[size] * over // under
            if found[out] < 1:
                raise ShapeError(f"{size}={sizes[size]} times {over}/{under} is less than 1")
    return found


def drawn_sizes(pick, large):
    """Letters of a map of any size, and attributes of another size or a scale, for tests."""
    most = 24 if large else 6
    letters = {"N": pick(1, most), "H": pick(1, most), "W": pick(1, most), "C": pick(1, 2 * most)}
    attrs = {"size": (0, 0), "scale": ((pick(2, 5), pick(1, 2)), (pick(2, 5), pick(1, 2)))}
    if pick(0, 1):
        attrs["size"] = (pick(1, most), pick(1, most))
    return letters, attrs | {"grid": (pick(0, 2), pick(0, 2))}


@helper
def limited(index, last):
    """The number from 0 to `last` that is nearest to index."""
    index = index if index > 0 else 0
    return index if index < last else last


@helper
def line(size, out, given, scale, grid):
    """Numbers a, b and c of the line r(p) = (a·p + b) / c along an axis of `size` and `out` elements."""
    over, under = scale[0], scale[1]
    if given > 0:
        over, under = out, size
    if grid == 1:
        return size - 1, 0, (out - 1 if out > 1 else 1)
    if grid == 2:
        return under, 0, over
    return 2 * under, under - over, 2 * over
