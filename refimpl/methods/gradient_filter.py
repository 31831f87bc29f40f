"""Gradient filtering (arXiv 2301.00330): a convolution's backward pass on patch means of dy. The forward is exact.

The P×Q map of dy is split into U×V patches of r×r (`patch`). With g̃ = `dy_mean`, x̃ = `x_sum` and w̃ = `w_sum`:

    g̃[n,u,v,k] = mean of dy over patch (u,v)                                  eq. (2)   pool_dy
    dx on the whole patch (u,v) = Σ_k g̃[n,u,v,k]·w̃[c,k], w̃ = Σ_{r,s} w[r,s]   eq. (3)   sum_w, patch_grad, expand
    dw[r,s,c,k] = Σ_{n,u,v} x̃[n,u,v,c]·g̃[n,u,v,k] for every (r,s)             eq. (5)   pool_x, patch_grad_w, expand_w

where x̃ is the sum of x over the patch. Only x̃ is kept from the forward pass. db is exact: `conv2d.grad_b`. Near the
border of a patch the true convolution mixes patches; the method treats each as if it extended far enough (supplement
B.4).

Readings beyond the equations:
  [code]  A stride makes the patch of x r·stride long; x̃ and dx have the U×V grid of g̃. Where dy and x are constant the
          method is exact at stride 1, but at stride s its dw and mean dx are s² times the exact ones, for nothing in
          eq. (2), (3) and (5) divides by it.
  [code]  `align` centre: where r does not divide P, the grid is centred on the map, ⌈(U·r − P)/2⌉ rows of padding at
          the top (columns alike; x with r·stride). The mean divides by the real elements, the sum has no padding.
  [paper] `align` corner: eq. (2) to the letter, patches start at the top left element.
  [code]  Dilation d ≥ r, d > 1: dx is the convolution of g̃ with the rotated kernel at dilation d//r on the patch grid
          (`patch_grad_dilated`), then expanded.
  [ours]  Groups: every G, each group for itself (the published code knows G = 1 and depthwise).
  [ours]  The dilated branch reads each axis alone: one with d = 1 or d < r has all its taps on the same patch. Its
          padding ⌊d//r·(R−1)/2⌋ keeps the grid for every R (the code's d//r, at R = 3).
  [ours]  U·r·stride < H (a large kernel without padding): the same offset is negative and crops x on both sides; rows
          outside every patch add nothing to x̃ and get dx = 0.
  [ours]  A patch larger than the map is one patch.

Dimensions: those of conv2d, and U V = patches along rows and columns. Any float dtype.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from ..kernels.geometry import classes, inside
from ..kernels.kernel import helper
from ..kernels.passes import Pass, ShapeError, declare
from ..kernels.traced import Traced
from .layer import Rule, TrainedLayer
from .registry import Grid, Other, Pick, Statement, Tried, register_method

SHAPES = {
    "x": "N H W C", "w": "R S C/G K", "dy": "N P Q K", "dx": "N H W C", "dw": "R S C/G K",
    "x_sum": "N U V C", "dy_mean": "N U V K", "w_sum": "C/G K", "dx_patch": "N U V C", "dw_patch": "C/G K",
}  # fmt: skip
CENTRE, CORNER = 0, 1  # `align` as the kernels take it
ALIGN = {"centre": CENTRE, "corner": CORNER}


def derive(sizes, attrs):
    """U and V from P and Q; ShapeError for a patch below 1 and for groups that do not divide the channels."""
    derived = {}
    for channels in "CK":
        if channels in sizes and sizes[channels] % sizes.get("G", 1):
            raise ShapeError(f"{channels}={sizes[channels]} is not a multiple of G={sizes['G']} groups")
    for i, (out, grid) in enumerate(("PU", "QV")):
        patch = attrs.get("patch", (1, 1))[i]
        if patch < 1:
            raise ShapeError(f"patch must be at least 1, got {patch}")
        if "patch" in attrs and out in sizes:
            derived[grid] = -(-sizes[out] // patch)
    return derived


def patch_rows(size: int, grid: int, side: int, align: int) -> np.ndarray:
    """Number of map rows in each of `grid` patches of `side` rows; also for columns."""
    before = rows_before(size, grid, side, align)
    edges = np.clip(np.arange(grid + 1) * side - before, 0, size)
    return np.diff(edges)


def rows_before(size: int, grid: int, side: int, align: int) -> int:
    """Rows of padding before the map, also columns; negative where the patches do not reach its first row."""
    return -((size - grid * side) // 2) if align == CENTRE else 0


def _covered(size: int, grid: int, side: int, align: int) -> np.ndarray:
    """Boolean (size,): does the map row lie in a patch?"""
    at = np.arange(size) + rows_before(size, grid, side, align)
    return (at >= 0) & (at < grid * side)


def _step(dilation: int, patch: int) -> int:
    """Dilation on the patch grid; 0 where all taps fall on the same patch."""
    return dilation // patch if dilation > 1 else 0


def _grid_taps(sizes, attrs, axis):
    grid, window = sizes["UV"[axis]], sizes["RS"[axis]]
    step = _step(attrs["dilation"][axis], attrs["patch"][axis])
    return classes(inside(grid, window, grid, 1, step, (step * (window - 1) // 2, 0)))[::-1]


DY = {
    "U": lambda sizes, attrs: patch_rows(sizes["P"], sizes["U"], attrs["patch"][0], attrs["align"]),
    "V": lambda sizes, attrs: patch_rows(sizes["Q"], sizes["V"], attrs["patch"][1], attrs["align"]),
}
X = {
    "U": lambda sizes, attrs: patch_rows(
        sizes["H"], sizes["U"], attrs["patch"][0] * attrs["stride"][0], attrs["align"]
    ),
    "V": lambda sizes, attrs: patch_rows(
        sizes["W"], sizes["V"], attrs["patch"][1] * attrs["stride"][1], attrs["align"]
    ),
}
MAP = {
    "H": lambda sizes, attrs: _covered(sizes["H"], sizes["U"], attrs["patch"][0] * attrs["stride"][0], attrs["align"]),
    "W": lambda sizes, attrs: _covered(sizes["W"], sizes["V"], attrs["patch"][1] * attrs["stride"][1], attrs["align"]),
}
GRID = {"U": lambda sizes, attrs: _grid_taps(sizes, attrs, 0), "V": lambda sizes, attrs: _grid_taps(sizes, attrs, 1)}


@helper
def clip(index, size):
    """Index moved into 0 … size. Not min and max: the CUDA target inside Numba does not compile them for integers."""
    index = index if index < size else size
    return index if index > 0 else 0


@declare(SHAPES, items="N U V C", writes="x_sum", derive=derive, alike=X)
def pool_x(t, x_sum, x, patch=(2, 2), stride=(1, 1), align=CENTRE):
    """Sum of x, (N, H, W, C), over each patch, (N, U, V, C): x̃ of eq. (5). U and V must be given."""
    rest, c = divmod(t, x_sum.shape[3])
    rest, v = divmod(rest, x_sum.shape[2])
    n, u = divmod(rest, x_sum.shape[1])
    rows, columns = patch[0] * stride[0], patch[1] * stride[1]
    top = -((x.shape[1] - x_sum.shape[1] * rows) // 2) if align == CENTRE else 0
    left = -((x.shape[2] - x_sum.shape[2] * columns) // 2) if align == CENTRE else 0
    total = x_sum.dtype.type(0)
    for h in range(clip(u * rows - top, x.shape[1]), clip((u + 1) * rows - top, x.shape[1])):
        for col in range(clip(v * columns - left, x.shape[2]), clip((v + 1) * columns - left, x.shape[2])):
            total += x[n, h, col, c]
    x_sum[n, u, v, c] = total


@declare(SHAPES, items="N U V K", writes="dy_mean", derive=derive, alike=DY)
def pool_dy(t, dy_mean, dy, patch=(2, 2), align=CENTRE):
    """Mean of dy, (N, P, Q, K), over the real elements of each patch, (N, U, V, K): eq. (2)."""
    rest, k = divmod(t, dy_mean.shape[3])
    rest, v = divmod(rest, dy_mean.shape[2])
    n, u = divmod(rest, dy_mean.shape[1])
    top = -((dy.shape[1] - dy_mean.shape[1] * patch[0]) // 2) if align == CENTRE else 0
    left = -((dy.shape[2] - dy_mean.shape[2] * patch[1]) // 2) if align == CENTRE else 0
    total = dy_mean.dtype.type(0)
    real = 0
    for p in range(clip(u * patch[0] - top, dy.shape[1]), clip((u + 1) * patch[0] - top, dy.shape[1])):
        for q in range(clip(v * patch[1] - left, dy.shape[2]), clip((v + 1) * patch[1] - left, dy.shape[2])):
            total += dy[n, p, q, k]
            real += 1
    dy_mean[n, u, v, k] = total / dy_mean.dtype.type(real)


@declare(SHAPES, items="C/G K", writes="w_sum", derive=derive, sums="R S", adds="R S")
def sum_w(t, w_sum, w):
    """Spatial sum of w, (R, S, C/G, K): w̃ of eq. (3), (C/G, K)."""
    c, k = divmod(t, w_sum.shape[1])
    total = w_sum.dtype.type(0)
    for r in range(w.shape[0]):
        for s in range(w.shape[1]):
            total += w[r, s, c, k]
    w_sum[c, k] = total


@declare(SHAPES, items="N U V C", writes="dx_patch", derive=derive, sums="K/G")
def patch_grad(t, dx_patch, dy_mean, w_sum):
    """Gradient of x on a whole patch, (N, U, V, C), eq. (3), as if it had no border (supplement B.4).

    From dy_mean, (N, U, V, K), and w_sum, (C/G, K). G must be given.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]; in a patch without border every tap meets the same mean dy
    rest, c = divmod(t, dx_patch.shape[3])
    rest, v = divmod(rest, dx_patch.shape[2])
    n, u = divmod(rest, dx_patch.shape[1])
    depth = w_sum.shape[0]
    width = w_sum.shape[1] * depth // dx_patch.shape[3]  # output channels of a group
    first = c // depth * width
    total = dx_patch.dtype.type(0)
    for k in range(first, first + width):
        total += dy_mean[n, u, v, k] * w_sum[c % depth, k]
    dx_patch[n, u, v, c] = total


@declare(SHAPES, items="N U V C", writes="dx_patch", derive=derive, alike=GRID, sums="K/G")
def patch_grad_dilated(t, dx_patch, dy_mean, w, patch=(2, 2), dilation=(1, 1)):
    """Gradient of x on a whole patch, (N, U, V, C), for a dilation d ≥ r.

    It is dy_mean, (N, U, V, K), convolved with the rotated kernel w, (R, S, C/G, K), at dilation d//r on the patch grid
    [code; the padding and the reading per axis are ours]. G must be given.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]; a tap at d ≥ r falls d//r patches further on
    rest, c = divmod(t, dx_patch.shape[3])
    rest, v = divmod(rest, dx_patch.shape[2])
    n, u = divmod(rest, dx_patch.shape[1])
    depth = w.shape[2]
    width = w.shape[3] * depth // dx_patch.shape[3]
    first = c // depth * width
    down = dilation[0] // patch[0] if dilation[0] > 1 else 0
    right = dilation[1] // patch[1] if dilation[1] > 1 else 0
    total = dx_patch.dtype.type(0)
    for r in range(w.shape[0]):
        i = u + down * (w.shape[0] - 1) // 2 - r * down
        if 0 <= i < dy_mean.shape[1]:
            for s in range(w.shape[1]):
                j = v + right * (w.shape[1] - 1) // 2 - s * right
                if 0 <= j < dy_mean.shape[2]:
                    for k in range(first, first + width):
                        total += dy_mean[n, i, j, k] * w[r, s, c % depth, k]
    dx_patch[n, u, v, c] = total


@declare(SHAPES, items="N H W C", writes="dx", derive=derive, alike=MAP)
def expand(t, dx, dx_patch, patch=(2, 2), stride=(1, 1), align=CENTRE):
    """Gradient of x, (N, H, W, C): that of its patch in dx_patch, (N, U, V, C), 0 outside. H and W must be given."""
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    rows, columns = patch[0] * stride[0], patch[1] * stride[1]
    top = -((dx.shape[1] - dx_patch.shape[1] * rows) // 2) if align == CENTRE else 0
    left = -((dx.shape[2] - dx_patch.shape[2] * columns) // 2) if align == CENTRE else 0
    u, v = (h + top) // rows, (col + left) // columns
    if 0 <= u < dx_patch.shape[1] and 0 <= v < dx_patch.shape[2]:
        dx[n, h, col, c] = dx_patch[n, u, v, c]
    else:
        dx[n, h, col, c] = dx.dtype.type(0)


@declare(SHAPES, items="C/G K", writes="dw_patch", derive=derive, sums="N U V", adds="N U V")
def patch_grad_w(t, dw_patch, dy_mean, x_sum):
    """Gradient of w at every tap, (C/G, K), eq. (5), as if patches had no border (supplement B.4).

    From dy_mean, (N, U, V, K), and x_sum, (N, U, V, C). G must be given.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]; in a patch without border every tap meets the same sum of x
    c, k = divmod(t, dw_patch.shape[1])
    depth = dw_patch.shape[0]
    channel = k // (dw_patch.shape[1] * depth // x_sum.shape[3]) * depth + c
    total = dw_patch.dtype.type(0)
    for n in range(x_sum.shape[0]):
        for u in range(x_sum.shape[1]):
            for v in range(x_sum.shape[2]):
                total += x_sum[n, u, v, channel] * dy_mean[n, u, v, k]
    dw_patch[c, k] = total


@declare(SHAPES, items="R S C/G K", writes="dw")
def expand_w(t, dw, dw_patch):
    """Gradient of w, (R, S, C/G, K), eq. (5): dw_patch, (C/G, K), at every (r, s). R and S must be given."""
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x·w[r,s,c,k]
    rest, k = divmod(t, dw.shape[3])
    rest, c = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    dw[r, s, c, k] = dw_patch[c, k]


@register_method
@dataclass(frozen=True)
class GradientFilter(Rule):
    """The rule of a Plan that trains convolutions with filtered gradients.

    patch: the side r of the patches, or its (rows, columns). align: "centre" as the authors' code, "corner" as eq. (2).
    ValueError for a patch below 1 or another `align`.
    """

    patch: int | tuple[int, int] = 2
    align: str = "centre"

    method: ClassVar[str] = "gradient-filter"
    states: ClassVar[Statement] = Statement(
        "rule", 50, "gradient-filter:patch=2,align=centre", {"patch": int, "align": tuple(ALIGN)},
        {
            "instances": "the gradients of the chosen instances are filtered",
            "prunes":
                "the kept channels of the error map are filtered; convolutions with groups are filtered, not pruned",
        },
        traits=("filters",), grid=Grid("patch", (2, 3, 4, 5, 7), 1), mark="s",
        at_most=(8, "the errors of filtered gradients multiply through a deep net"),
        tried=Tried(timed=({"patch": 2}, {"patch": 4}), variants={"=4": ({"patch": 4}, {})}),
    )  # fmt: skip
    stage: ClassVar[int] = 2
    priced: ClassVar[tuple[str, ...]] = ("patch",)

    def __post_init__(self):
        sides = self.patch if isinstance(self.patch, (tuple, list)) else (self.patch, self.patch)
        if len(sides) != 2 or any(isinstance(r, bool) or not isinstance(r, (int, np.integer, Traced)) for r in sides):
            raise ValueError(f"patch must be an integer or two, got {self.patch!r}")
        for r in sides:
            if r < 1:
                raise ValueError(f"patch must be at least 1, got {r}")
        if self.align not in ALIGN:
            raise ValueError(f"align must be centre or corner, got {self.align!r}")
        object.__setattr__(self, "patch", tuple(r if isinstance(r, Traced) else int(r) for r in sides))

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "GradientFilter":
        """With patches of one to four rows and columns."""
        sides = (pick(1, 4), pick(1, 4)) if pick(0, 1) else pick(1, 4)
        return cls(sides, list(ALIGN)[pick(0, len(ALIGN) - 1)])

    def attrs(self) -> dict:
        """The attributes that its passes take beside those of the convolution."""
        return {"patch": self.patch, "align": ALIGN[self.align]}

    def dilated(self, attrs: Mapping) -> bool:
        """Does a convolution with these attributes take the dilated branch?"""
        dilation = attrs.get("dilation", (1, 1))
        return any(_step(d, r) > 0 for d, r in zip(dilation, cast(tuple[int, int], self.patch), strict=True))

    def passes(self, attrs: Mapping) -> tuple[Pass, ...]:
        """The passes that replace `conv2d.grad_x` and `conv2d.grad_w` of a node with the attributes `attrs`, in order.

        The last writer of dx and of dw is among them; `conv2d.grad_b` stays.
        """
        dx = (patch_grad_dilated,) if self.dilated(attrs) else (sum_w, patch_grad)
        return (pool_x, pool_dy, *dx, expand, patch_grad_w, expand_w)

    def bind(self, node: TrainedLayer) -> None:
        """Add its passes to a node's, on the convolution that is left, and leave the products on patches."""
        dilated = self.dilated(node.attrs)
        node.finish_x(pool_dy, expand, *(() if dilated else (sum_w,)))
        node.finish_w(pool_x, expand_w)
        node.products = {"dx": patch_grad_dilated if dilated else patch_grad, "dw": patch_grad_w}
