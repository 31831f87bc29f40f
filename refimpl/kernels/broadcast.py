"""Arrays whose axes are those of a map, whole or of length 1: what bodies of several operators do with them.

Along an axis of length 1 the one element stands for all. U, V and D are such rows, columns and channels beside the
H, W and C of a map; a tensor of three axes is a map of one row, and of one of more, H is all axes before the last two.
"""

from .kernel import helper
from .passes import ShapeError


def fits(sizes, attrs):
    """Nothing follows; ShapeError where an axis is neither whole nor of length 1."""
    for own, whole in (("U", "H"), ("V", "W"), ("D", "C")):
        if own in sizes and whole in sizes and sizes[own] != 1 and sizes[own] != sizes[whole]:
            raise ShapeError(f"{own} must be 1 or {whole}={sizes[whole]}, got {own}={sizes[own]}")
    return {}


@helper
def along(index, length):
    """The index along an axis of this length that stands for `index` of a map."""
    return index if length > 1 else 0


@helper
def behind(index, length, whole):
    """The end of the map's indices, of `whole`, that `index` of an axis of this length stands for.

    `along` gives the first of them.
    """
    return index + 1 if length > 1 else whole


def left_over(sizes, attrs):
    """U, V and D: what `over`, 1 or 0 for rows, columns and channels, leaves of H, W and C; ShapeError for another."""
    if set(attrs["over"]) - {0, 1}:
        raise ShapeError(f"over must be 0 or 1 for rows, columns and channels, got {attrs['over']}")
    axes = zip("HWC", "UVD", attrs["over"], strict=True)
    return {own: 1 if gone else sizes[whole] for whole, own, gone in axes if gone or whole in sizes}


def drawn_over(pick, large):
    """Letters of a map, and along which axes it becomes one, for tests."""
    most = 24 if large else 5
    letters = {"N": pick(1, most), "H": pick(1, most), "W": pick(1, most), "C": pick(1, 2 * most)}
    return letters, {"over": (pick(0, 1), pick(0, 1), pick(0, 1))}


def drawn(pick, large):
    """Letters of a map and of an array with some of its axes whole, for tests."""
    most = 24 if large else 5
    letters = {"N": pick(1, most), "H": pick(1, most), "W": pick(1, most), "C": pick(1, 2 * most)}
    return letters | {own: (1, letters[whole])[pick(0, 1)] for own, whole in (("U", "H"), ("V", "W"), ("D", "C"))}, {}
