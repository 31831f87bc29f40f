"""Error map pruning (arXiv 2007.03213): a convolution's backward pass on the few channels of dy that matter most.

Before anything is computed from the error map dy of K channels, its channels are scored, and L = αK of them are kept,
the same ones for the whole mini-batch:

    S_k = Σ_n (γ₁·‖w_k‖₁ + γ₂·‖dy_k‖₁)              eq. (11), (14)   score
    kept: the L channels with the largest S_k                        rank, keep
    dx = Σ over kept k of dy_k ∗ w_k                eq. (8)          keep_dy, keep_w, conv2d.grad_x
    dw_k = x ∗ dy_k for kept k, 0 for the others    eq. (12)         conv2d.grad_w, spread_w

Skipping is structured: kept channels are copied side by side, the products run on L channels, no mask is multiplied.
With several groups the groups keep different numbers of channels: `grad_x` and `grad_w` look their channels up.

Readings beyond the equations:
  [paper] uses α both for a "pruning ratio" and for the kept share n'/n: here `keep` is the share that is kept.
  [ours]  L = max(1, round(keep·K)), a half to the even neighbour; of equal scores the lower channel comes first.
  [ours]  γ₁ = γ₂ = 1. dy is that of the mean loss, 1/N of an instance's own, so that with these γ the kernels' norms
          mostly decide; γ₁ = 0 leaves it to dy.
  [ours]  A pruned channel's bias gradient is zero.
  [ours]  A depthwise convolution keeps L of its channels: dx and dw of the others are zero.
Dimensions: N samples, H W input and P Q output rows and columns, C input and K output channels, R S kernel rows and
columns, G groups, L kept output channels. Any float dtype.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import arguments
from ..kernels.geometry import CONV_MAP, CONV_TAP, conv_derive
from ..kernels.passes import Bound, declare
from ..kernels.traced import part
from .layer import Rule, TrainedLayer
from .registry import Grid, Other, Pick, Statement, Tried, register_method

SHAPES = {
    "x": "N H W C", "w": "R S C/G K", "dy": "N P Q K", "dx": "N H W C", "dw": "R S C/G K", "db": "K",
    "scores": "K", "rank": "int32: K", "kept": "int32: L",
    "dy_kept": "N P Q L", "w_kept": "R S C/G L", "dw_kept": "R S C/G L", "db_kept": "L",
    "x_kept": "N H W L", "dx_kept": "N H W L",
}  # fmt: skip


def first(sizes) -> np.ndarray:
    """Example of `kept` for counting: the first L channels."""
    return np.arange(sizes["L"])


def kept_in_group(sizes, attrs) -> np.ndarray:
    """Class of each input channel of `grad_x`: how many of `first` lie in its group."""
    groups = np.bincount(first(sizes) // (sizes["K"] // sizes["G"]), minlength=sizes["G"])
    return np.repeat(groups, sizes["C"] // sizes["G"])


def is_kept(sizes, attrs) -> np.ndarray:
    """Class of each output channel: is it in `first`?"""
    return (np.arange(sizes["K"]) < sizes["L"]).astype(int)


@declare(SHAPES, items="K", writes="scores", sums="N P Q", adds="N")
def score(t, scores, dy, w, gamma_w=1.0, gamma_dy=1.0):
    """Score of each channel, (K,), eq. (11) and (14), from dy, (N, P, Q, K), and w, (R, S, C/G, K), over the batch."""
    norm = scores.dtype.type(0)
    for r in range(w.shape[0]):
        for s in range(w.shape[1]):
            for c in range(w.shape[2]):
                norm += abs(w[r, s, c, t])
    total = scores.dtype.type(0)
    for n in range(dy.shape[0]):
        for p in range(dy.shape[1]):
            for q in range(dy.shape[2]):
                total += abs(dy[n, p, q, t])
    scores[t] = gamma_w * scores.dtype.type(dy.shape[0]) * norm + gamma_dy * total


@declare(SHAPES, items="K", writes="rank")
def rank(t, rank, scores):
    """Rank of each channel, (K,), by eq. (14): 0 for the largest of scores, (K,); of equal ones the lower is first."""
    ahead = 0
    for k in range(scores.shape[0]):
        if k < t:
            ahead += 1 if scores[k] >= scores[t] else 0
        else:
            ahead += 1 if scores[k] > scores[t] else 0
    rank[t] = ahead


@declare(SHAPES, items="L", writes="kept")
def keep(t, kept, rank):
    """Kept channels, (L,), eq. (14): those of rank 0 … L−1, from rank, (K,). L must be given."""
    channel = 0
    for k in range(rank.shape[0]):
        if rank[k] == t:
            channel = k
    kept[t] = channel


@declare(SHAPES, items="N P Q L", writes="dy_kept", indices={"kept": "K"})
def keep_dy(t, dy_kept, dy, kept):
    """Kept channels of dy, (N, P, Q, L), from dy, (N, P, Q, K), and kept, (L,)."""
    rest, l = divmod(t, dy_kept.shape[3])
    rest, q = divmod(rest, dy_kept.shape[2])
    n, p = divmod(rest, dy_kept.shape[1])
    dy_kept[n, p, q, l] = dy[n, p, q, kept[l]]


@declare(SHAPES, items="R S C/G L", writes="w_kept", indices={"kept": "K"})
def keep_w(t, w_kept, w, kept):
    """Kept channels of w, (R, S, C/G, L), from w, (R, S, C/G, K), and kept, (L,)."""
    rest, l = divmod(t, w_kept.shape[3])
    rest, c = divmod(rest, w_kept.shape[2])
    r, s = divmod(rest, w_kept.shape[1])
    w_kept[r, s, c, l] = w[r, s, c, kept[l]]


@declare(SHAPES, items="N H W L", writes="x_kept", indices={"kept": "C"})
def keep_x(t, x_kept, x, kept):
    """Kept channels of x, (N, H, W, L), of a depthwise convolution, from x, (N, H, W, C), and kept, (L,)."""
    rest, l = divmod(t, x_kept.shape[3])
    rest, col = divmod(rest, x_kept.shape[2])
    n, h = divmod(rest, x_kept.shape[1])
    x_kept[n, h, col, l] = x[n, h, col, kept[l]]


@declare(SHAPES, items="R S C/G K", writes="dw", indices={"rank": "K"})
def spread_w(t, dw, dw_kept, rank):
    """Gradient of w, (R, S, C/G, K), eq. (12): dw_kept, (R, S, C/G, L), at the channels of rank below L, else 0."""
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k]
    rest, k = divmod(t, dw.shape[3])
    rest, c = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    place = rank[k]
    inside = place < dw_kept.shape[3]
    value = dw_kept[r, s, c, place if inside else 0]
    dw[r, s, c, k] = value if inside else dw.dtype.type(0)


@declare(SHAPES, items="K", writes="db", indices={"rank": "K"})
def spread_b(t, db, db_kept, rank):
    """Gradient of b, (K,): db_kept, (L,), at the channels of rank, (K,), below L, 0 elsewhere."""
    # forward: y[n,p,q,k] = b[k] + Σ x·w
    place = rank[t]
    inside = place < db_kept.shape[0]
    value = db_kept[place if inside else 0]
    db[t] = value if inside else db.dtype.type(0)


def depthwise(sizes, attrs):
    """K of a convolution whose output channels are its input channels."""
    return {"K": sizes["C"]} if "C" in sizes else {}


@declare(SHAPES, items="N H W C", writes="dx", derive=depthwise, indices={"rank": "C"})
def spread_x(t, dx, dx_kept, rank):
    """Gradient of x, (N, H, W, C), of a depthwise convolution: dx_kept, (N, H, W, L), at the kept channels, else 0."""
    # forward: y[n,p,q,c] = b[c] + Σ_{r,s} x[n,h,col,c]·w[r,s,0,c]
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    place = rank[c]
    inside = place < dx_kept.shape[3]
    value = dx_kept[n, h, col, place if inside else 0]
    dx[n, h, col, c] = value if inside else dx.dtype.type(0)


@declare(
    SHAPES, items="N H W C", writes="dx", derive=conv_derive, alike={**CONV_MAP, "C": kept_in_group},
    examples={"kept": first}, indices={"kept": "K"},
)  # fmt: skip
def grad_x(t, dx, dy, w, kept, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of x, (N, H, W, C), eq. (8), with groups, from dy, (N, P, Q, K), and w at the channels in kept, (L,)."""
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    depth = w.shape[2]
    width = w.shape[3] * depth // dx.shape[3]  # output channels of a group
    group = c // depth
    total = dx.dtype.type(0)
    for r in range(w.shape[0]):
        p, off = divmod(h + pad[0][0] - r * dilation[0], stride[0])
        if off == 0 and 0 <= p < dy.shape[1]:
            for s in range(w.shape[1]):
                q, off = divmod(col + pad[1][0] - s * dilation[1], stride[1])
                if off == 0 and 0 <= q < dy.shape[2]:
                    for l in range(kept.shape[0]):
                        k = kept[l]
                        if k // width == group:
                            total += dy[n, p, q, k] * w[r, s, c % depth, k]
    dx[n, h, col, c] = total


@declare(
    SHAPES, items="R S C/G K", writes="dw", derive=conv_derive, alike={**CONV_TAP, "K": is_kept}, sums="N", adds="N",
    examples={"rank": lambda sizes: np.arange(sizes["K"])},
)  # fmt: skip
def grad_w(t, dw, dy, x, rank, kept, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of w, (R, S, C/G, K), eq. (12), with groups, from dy, (N, P, Q, K), and x, (N, H, W, C).

    It is 0 but at the channels of rank, (K,), below L, the length of kept, (L,).
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, k = divmod(t, dw.shape[3])
    rest, c = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    depth = dw.shape[2]
    channel = k // (dw.shape[3] * depth // x.shape[3]) * depth + c
    total = dw.dtype.type(0)
    if rank[k] < kept.shape[0]:
        for n in range(x.shape[0]):
            for p in range(dy.shape[1]):
                h = p * stride[0] - pad[0][0] + r * dilation[0]
                if 0 <= h < x.shape[1]:
                    for q in range(dy.shape[2]):
                        col = q * stride[1] - pad[1][0] + s * dilation[1]
                        if 0 <= col < x.shape[2]:
                            total += x[n, h, col, channel] * dy[n, p, q, k]
    dw[r, s, c, k] = total


@register_method
@dataclass(frozen=True)
class ErrorMapPruning(Rule):
    """The rule of a Plan that trains convolutions on the kept share of their error map's channels.

    keep: share of the output channels that is kept, above 0 and at most 1 (1 is the dense gradient). gamma_w, gamma_dy:
    γ₁ and γ₂ of the score, not negative and not both 0; where gamma_w is 0 the error map alone chooses, which kept more
    of the gradient of the watch net. ValueError for other values.
    """

    keep: float = 0.5
    gamma_w: float = 1.0
    gamma_dy: float = 1.0

    method: ClassVar[str] = "error-map-pruning"
    states: ClassVar[Statement] = Statement(
        "rule", 40, "error-map-pruning:keep=0.5", {"keep": float, "gamma_w": float, "gamma_dy": float},
        {"instances": "the error map of the chosen instances is pruned by channel"},
        traits=("prunes",), grid=Grid("keep", (0.1, 0.25, 0.4, 0.5, 0.75), 1.0), mark="^",
        tried=Tried(
            timed=({"keep": 0.5}, {"keep": 0.25}),
            variants={"=0.5,batch-norm": ({"keep": 0.5}, dict(batch_norm="train"))},
        ),
    )  # fmt: skip
    stage: ClassVar[int] = 1
    priced: ClassVar[tuple[str, ...]] = ("keep",)

    def __post_init__(self):
        arguments.numbers(keep=self.keep, gamma_w=self.gamma_w, gamma_dy=self.gamma_dy)
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be a share above 0 and at most 1, got {self.keep}")
        for name in ("gamma_w", "gamma_dy"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number from 0 up, got {getattr(self, name)}")
        if self.gamma_w == self.gamma_dy == 0:
            raise ValueError("gamma_w and gamma_dy are both 0: every channel would have the same score")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "ErrorMapPruning":
        """With any share and weights of the two norms."""
        return cls(pick(1, 19) / 20, pick(0, 2) / 2, pick(1, 2))

    def kept(self, channels: int) -> int:
        """L, how many of `channels` are kept."""
        return part(self.keep, channels)

    def attrs(self) -> dict:
        """The attributes of `score`."""
        return {"gamma_w": float(self.gamma_w), "gamma_dy": float(self.gamma_dy)}

    def letters(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The letter L of a node with these sizes."""
        return {"L": self.kept(sizes["K"])}

    def bind(self, node: TrainedLayer) -> None:
        """Add its passes to a node's, and give the dense passes the kept channels of dy and w in their place."""
        groups, depthwise = node.sizes["G"], node.depthwise
        if groups > 1 and node.filtered:
            return  # our reading: in that combination grouped convolutions are filtered, not pruned
        node.add(score, rank, keep, keep_dy, spread_b)
        if groups > 1 and not depthwise:
            node.add(grad_x, grad_w)
            node.add_grad_b({"dy": "dy_kept", "db": "db_kept"}, {"K": "L"})
            return
        node.add(keep_w)
        node.passes.append(Bound(spread_w, letters=dict(node.w_letters)))
        node.names |= {"dy": "dy_kept", "w": "w_kept", "dw": "dw_kept", "db": "db_kept"}
        node.letters |= {"K": "L"}
        if depthwise:
            node.add(keep_x, spread_x)
            node.names |= {"x": "x_kept", "dx": "dx_kept"}
            node.letters |= {"C": "L", "G": "L"}
