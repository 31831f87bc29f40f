"""The elements of a sample under another shape: (N, P, Q, R). The same memory, so no kernel runs.

Attribute `size`: P and Q; R is what is left of the elements. Dimensions: N samples, D elements a sample. Any float
dtype.
"""

from ..kernels.geometry import parted

SHAPES = {"x": "N D*", "y": "N P Q R", "dy": "N P Q R", "dx": "N D*"}
ALIASES = {"y": "x", "dx": "dy"}
TANGENT = ("tx",)  # ty = tx


def derive(sizes, attrs):
    """P, Q and R; ShapeError where the elements cannot be shared out so."""
    return parted(sizes["D"], attrs["size"])
