"""Resize and Upsample: a map in another size, the nearest element, or linear or cubic between neighbours.

By scales where the file gives such, else to the rows and columns that it says.
"""

from dataclasses import dataclass
from fractions import Fraction

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Resize", "Upsample")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
HALF, CORNERS, FIRST = 0, 1, 2  # grids of ours
MOST = 10_000  # of the lower number of a scale, as a quotient


def convert(here: OnnxNode) -> None:
    """An interpolate, a cubic_resize, or no node where the size stays."""
    x, rank = here.map(0), len(here.tensor(0).axes)
    height, width = here.graph.shape(x)[1:3]
    rows, columns = (Side(n, *asked(here, rank, axis)) for n, axis in ((height, rank - 2), (width, rank - 1)))
    if rank == 3:  # of one row
        rows = Side(1, Fraction(1), columns.by_size)
    if rows.scale == columns.scale == 1:
        here.give_map(x, rank)
        return
    mode = here.attr("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear", "cubic"):
        raise Unsupported(f"its mode is {mode}, but nearest, linear and cubic are read")
    modern = here.op == "Resize" and here.opset > 10
    transform = here.attr("coordinate_transformation_mode", "half_pixel") if modern else "asymmetric"
    size = (rows.out, columns.out) if columns.by_size else 0
    scale = (rows.scale.as_integer_ratio(), columns.scale.as_integer_ratio())
    grid = (grid_of(transform, rows), grid_of(transform, columns))
    shrink, cubic = bool(here.attr("antialias", 0)), mode == "cubic"
    if cubic or shrink and mode != "nearest" and min(rows.scale, columns.scale) < 1:
        if rank == 3:
            raise Unsupported("it filters a sequence, where maps are read")
        bend, exclude = float(here.attr("cubic_coeff_a", -0.75)), bool(here.attr("exclude_outside", 0))
        here.give_map(here.graph.cubic_resize(here.name, x, size, scale, grid, cubic, bend, shrink, exclude), rank)
        return
    rounding = ROUNDINGS.index(here.attr("nearest_mode", "round_prefer_floor")) if modern else 2
    y = here.graph.interpolate(
        here.name, x, size, scale, mode != "nearest", grid, rounding
    )  # fmt: skip
    here.give_map(y, rank)


@dataclass(frozen=True)
class Side:
    """Rows or columns: how many a map has, their scale, and whether the file says a size."""

    size: int
    scale: Fraction
    by_size: bool

    @property
    def out(self) -> int:
        """How many the new map has."""
        return int(self.size * self.scale)


def asked(here: OnnxNode, rank: int, axis: int) -> tuple[Fraction, bool]:
    """The scale of an axis, and whether it follows from a size; Unsupported where samples or channels change."""
    if here.op == "Upsample" or here.opset < 11:
        found, sizes = here.constant(1, "scales"), None
    else:
        found, sizes = here.constant(2, "scales"), here.constant(3, "sizes")
    by_size = sizes is not None and sizes.size > 0
    given = sizes if by_size else found
    if given is None or not given.size:
        raise Unsupported("it has neither scales nor sizes")
    whole = here.shape(here.tensor(0))
    full: list[float | Fraction] = [*whole] if by_size else [1] * rank
    for place, n in zip(here.attr("axes", range(rank)), given.tolist(), strict=True):
        full[int(place) % rank] = n
    if full[0] != 1 or full[1] != (whole[1] if by_size else 1):
        raise Unsupported(f"it changes samples or channels: {given.tolist()}")
    policy = here.attr("keep_aspect_ratio_policy", "stretch")
    if by_size and policy != "stretch":  # one scale for all axes that it names
        named = [int(place) % rank for place in here.attr("axes", range(rank))]
        shares = [Fraction(int(full[place]), whole[place]) for place in named]
        one = min(shares) if policy == "not_larger" else max(shares)
        for place in named:
            full[place] = one * whole[place]
        if any(full[place] != int(full[place]) for place in named):  # the grid then follows the scale, not the size
            raise Unsupported(
                f"it keeps the ratio of rows and columns at a scale of {one}, which makes no whole numbers"
            )
    if by_size:
        return Fraction(int(full[axis]), whole[axis]), True
    return Fraction(full[axis]).limit_denominator(MOST), False


def grid_of(transform: str, side: Side) -> int:
    """Our grid along an axis."""
    exact = side.size * side.scale == side.out
    if transform == "align_corners":
        if not exact:  # runtimes and ONNX's own statement then place the last corner differently
            raise Unsupported(f"it aligns corners, but {side.size} times {float(side.scale):g} is no whole number")
        return CORNERS
    if transform == "asymmetric" or transform == "pytorch_half_pixel" and side.out == 1:
        return FIRST
    if transform in ("half_pixel", "pytorch_half_pixel") or transform == "half_pixel_symmetric" and exact:
        return HALF
    raise Unsupported(f"its coordinates are {transform}")
