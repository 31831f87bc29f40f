"""Resize and Upsample: a map in another size, the nearest element or linear between neighbours.

By scales where the file gives such, else to the rows and columns that it says.
"""

from fractions import Fraction

import numpy as np

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Resize", "Upsample")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
HALF, CORNERS, FIRST = 0, 1, 2  # grids of ours
MOST = 10_000  # of the lower number of a scale, as a quotient


def convert(here: OnnxNode) -> None:
    """A resize, or no node where the size stays."""
    x, rank = here.map(0), len(here.tensor(0).axes)
    size = here.graph.shape(x)[1:3]
    scales, sizes = asked(here, rank)
    if sizes is not None:
        scale, out = [Fraction(n, old) for n, old in zip(sizes, size, strict=True)], sizes
    else:
        assert scales is not None
        scale = [Fraction(s).limit_denominator(MOST) for s in scales]
        out = [int(n * s) for n, s in zip(size, scale, strict=True)]
    if set(scale) == {Fraction(1)}:
        here.give_map(x, rank)
        return
    mode = here.attr("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        raise Unsupported(f"its mode is {mode}, but nearest and linear are read")
    if here.attr("antialias", 0) and min(scale) < 1:
        raise Unsupported("it makes a map smaller with antialiasing")
    modern = here.op == "Resize" and here.opset > 10
    transform = here.attr("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    rounding = ROUNDINGS.index(here.attr("nearest_mode", "round_prefer_floor")) if modern else 2
    rows, columns = (grid_of(transform, *each) for each in zip(size, scale, out, strict=True))
    wanted = (0, 0) if sizes is None else (sizes[0], sizes[1])
    ratio = [(1, 1) if sizes else (s.numerator, s.denominator) for s in scale]
    y = here.graph.resize(here.name, x, wanted, (ratio[0], ratio[1]), mode != "nearest", (rows, columns), rounding)
    here.give_map(y, rank)


def asked(here: OnnxNode, rank: int) -> tuple[list[float] | None, list[int] | None]:
    """Scales of rows and columns, or their sizes; Unsupported where samples or channels change."""
    if here.op == "Upsample" or here.opset < 11:
        found, sizes = here.constant(1, "scales"), None
    else:
        found, sizes = here.constant(2, "scales"), here.constant(3, "sizes")
    if sizes is None and (found is None or not found.size):
        raise Unsupported("it has neither scales nor sizes")
    if here.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("it keeps the ratio of rows and columns")
    by_size = sizes is not None and sizes.size > 0
    given = np.asarray(sizes if by_size else found)
    whole = here.shape(here.padded(0)) if by_size else (1,) * rank
    full = list(whole)
    for axis, n in zip(here.attr("axes", range(rank)), given, strict=True):
        full[int(axis) % rank] = n
    if full[1] != whole[1] or full[0] != 1:
        raise Unsupported(f"it changes samples or channels: {given.tolist()}")
    places = full[2:] if rank == 4 else [1, full[2]]
    return (None, [int(n) for n in places]) if by_size else ([float(n) for n in places], None)


def grid_of(transform: str, size: int, scale: Fraction, out: int) -> int:
    """Our grid along an axis."""
    if transform == "align_corners":
        if size * scale != out:  # runtimes and ONNX's own statement then place the last corner differently
            raise Unsupported(f"it aligns corners, but {size} times {float(scale):g} is no whole number")
        return CORNERS
    if transform == "asymmetric" or transform == "pytorch_half_pixel" and out == 1:
        return FIRST
    symmetric = transform == "half_pixel_symmetric" and size * scale == out
    if transform in ("half_pixel", "pytorch_half_pixel") or symmetric or scale == 1:
        return HALF
    raise Unsupported(f"its coordinates are {transform}")
