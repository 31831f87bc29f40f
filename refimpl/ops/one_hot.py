"""A row of numbers for each index: y[n, h, w, d] is `on` where x[n, h, w, 0] = d, else `off`; −1 is the last d.

An index that is none of y's has `off` everywhere. It has no gradient: gradients stop here.
Dimensions: N samples, H W rows and columns, C = 1, D elements of a row, the attribute `depth`. Any float dtype.
"""

from ..kernels.passes import ShapeError, declare

SHAPES = {"x": "N H W C", "y": "N H W D"}
STOPS = ("x",)


def deep(sizes, attrs):
    """D, the depth; ShapeError where that is none, or x has channels."""
    if attrs["depth"] < 1 or sizes.get("C", 1) != 1:
        raise ShapeError(f"depth must be 1 and more, and C=1, got {attrs['depth']} and C={sizes.get('C', 1)}")
    return {"D": attrs["depth"]}


def drawn(pick, large):
    """Letters of indices, and their depth."""
    most = 24 if large else 4
    letters = {"N": pick(1, most), "H": pick(1, most), "W": pick(1, most), "C": 1}
    return letters, {"depth": pick(1, most), "on": pick(0, 4) / 2, "off": -pick(0, 4) / 2}


@declare(SHAPES, items="N H W D", writes="y", derive=deep)
def forward(t, y, x, depth=1, on=1.0, off=0.0):
    """Output y, (N, H, W, D), of indices x, (N, H, W, 1)."""
    rest, d = divmod(t, y.shape[3])
    rest, w = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    float_ = y.dtype.type
    index = x[n, h, w, 0]
    y[n, h, w, d] = float_(on) if (index == float_(d)) | (index == float_(d - depth)) else float_(off)
