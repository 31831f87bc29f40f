"""Ranks of the elements of a row: how many come before one in a row that is sorted. Equal ones keep their order."""

from .kernel import helper
from .passes import ShapeError


@helper
def rank_in_row(x, n, c, smallest):
    """How many elements of row n of x, (N, C), are larger than element c, or smaller, or equal and stand before it."""
    value = x[n, c]
    number = 0
    for other in range(x.shape[1]):
        beside = x[n, other]
        first = beside < value if smallest else beside > value
        number += 1 if first | ((beside == value) & (other < c)) else 0
    return number


def taken(sizes, attrs):
    """K, the count; ShapeError where a row has not so many elements."""
    count, most = attrs["count"], sizes.get("C", attrs["count"])
    if not 1 <= count <= most:
        raise ShapeError(f"count must be from 1 to the C={most} elements of a row, got {count}")
    return {"K": count}


def drawn_rows(pick, large):
    """Letters of rows, and how many elements of each are taken, for tests."""
    c = pick(1, 40 if large else 8)
    return {"N": pick(1, 12 if large else 4), "C": c}, {"count": pick(1, c), "smallest": bool(pick(0, 1))}
