"""Dynamic gradient sparse update (arXiv 2503.17959): train a few input channels of many layers.

Only the abstract of the paper could be read in full; what is known of the rest is second-hand. The abstract: only
important layers and channels are updated, the selection changes between iterations so that most parameters of the
update layers are visited over time, and less memory is needed. How that is done here:

    x_chosen: the M chosen input channels of x, all that is stored of it          choose, take_x
    dw[r,s,m,k] = (x_chosen_m ∗ dy_k)[r,s]                                         conv2d.grad_w, with groups grad_w
    w[r,s,chosen_m,k] ← w − lr·(dw + weight_decay·w)                               update

dx is exact and needs w, not x. Selection: each layer orders its C input channels once and cuts the order into blocks of
M; block number `block` is trained, the last block of a cycle wraps round to the first channels.

Readings:
  [ours]        Input-channel selection: the axis is the input channel (a depthwise convolution's own channel), because
                no other saves stored features.
  [ours]        M = max(1, round(ratio·C)), a half to the even neighbour.
  [ours]        Order: largest L2 norm of the pre-trained weights of a channel first ("norm"); or random; or largest L2
                norm of its dense gradient on the run's first mini-batch ("gradient", see `training.learnt_constants`).
  [second-hand] Three stages: fixed selection, dynamic selection, fixed again.
  [ours]        The first 10 % and the last 20 % of the steps are fixed on block 0; in between the block number grows by
                one each step, so that each of a layer's channels is visited at least once in ⌈C/M⌉ steps (cyclic
                traversal): exactly once where M divides C, else the last block of a cycle repeats a few. Steps are
                those that update: one that is skipped takes no block.
  [ours]        Plain SGD: a momentum array over changing channels would void the memory claim.
  [paper]       2 % of the convolution weights are updated. [second-hand] a ratio of 0.2, which contradicts it: the
                default is 0.02.
Dimensions: N samples, H W input and P Q output rows and columns, C input and K output channels, R S kernel rows and
columns, G groups, M chosen input channels. Any float dtype.
"""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .. import arguments
from ..kernels import random
from ..kernels.geometry import CONV_TAP, conv_derive
from ..kernels.passes import declare
from ..kernels.traced import part
from . import sparse_update_whole
from .layer import CONVOLUTION, WHOLE, Rule, TrainedLayer
from .registry import LAYERS, Grid, Other, Pick, Statement, Tried, register_method

if TYPE_CHECKING:
    from ..compiler.ir import Moment

SHAPES = {
    "x": "N H W C", "w": "R S C/G K", "dy": "N P Q K", "x_chosen": "N H W M", "dw": "R S M K/G",
    "order": "int32: C", "block": "int64: 1", "chosen": "int32: M", "lr": "1", "clip": "1",
}  # fmt: skip
ORDERS = ("norm", "random", "gradient")
SCALINGS = ("aware", "none")


@declare(SHAPES, items="M", writes="chosen")
def choose(t, chosen, order, block):
    """Chosen channels, (M,), of cyclic traversal: block number block, (1,), of order, (C,). M must be given."""
    chosen[t] = order[(block[0] * chosen.shape[0] + t) % order.shape[0]]


@declare(SHAPES, items="N H W M", writes="x_chosen", indices={"chosen": "C"})
def take_x(t, x_chosen, x, chosen):
    """Chosen channels of x, (N, H, W, M), of input-channel selection, from x, (N, H, W, C), and chosen, (M,)."""
    rest, m = divmod(t, x_chosen.shape[3])
    rest, col = divmod(rest, x_chosen.shape[2])
    n, h = divmod(rest, x_chosen.shape[1])
    x_chosen[n, h, col, m] = x[n, h, col, chosen[m]]


@declare(
    SHAPES, items="R S M K/G", writes="dw", derive=conv_derive, alike=CONV_TAP, sums="N", adds="N",
    indices={"chosen": "C"},
)  # fmt: skip
def grad_w(t, dw, dy, x_chosen, chosen, order, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0))):
    """Gradient of w at the chosen channels, (R, S, M, K/G), with groups.

    From dy, (N, P, Q, K), x_chosen, (N, H, W, M), and chosen, (M,); order, (C,), tells C.
    """
    # forward: y[n,p,q,k] = b[k] + Σ_{r,s,c} x[n,h,col,c]·w[r,s,c,k], h = p·stride − top + r·dilation (col alike)
    rest, j = divmod(t, dw.shape[3])
    rest, m = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    groups = dy.shape[3] // dw.shape[3]
    k = chosen[m] // (order.shape[0] // groups) * dw.shape[3] + j
    total = dw.dtype.type(0)
    for n in range(x_chosen.shape[0]):
        for p in range(dy.shape[1]):
            h = p * stride[0] - pad[0][0] + r * dilation[0]
            if 0 <= h < x_chosen.shape[1]:
                for q in range(dy.shape[2]):
                    col = q * stride[1] - pad[1][0] + s * dilation[1]
                    if 0 <= col < x_chosen.shape[2]:
                        total += x_chosen[n, h, col, m] * dy[n, p, q, k]
    dw[r, s, m, j] = total


@declare(SHAPES, items="R S M K/G", writes="w", inplace="w", indices={"chosen": "C"})
def update(t, w, dw, chosen, lr, clip=None, weight_decay=0.0):
    """New w, (R, S, C/G, K), at the input channels in chosen, (M,), from dw, (R, S, M, K/G), lr and clip, (1,)."""
    rest, j = divmod(t, dw.shape[3])
    rest, m = divmod(rest, dw.shape[2])
    r, s = divmod(rest, dw.shape[1])
    c = chosen[m] % w.shape[2]
    k = chosen[m] // w.shape[2] * dw.shape[3] + j
    g = dw[r, s, m, j]
    if clip.shape[0]:
        g *= clip[0]
    g += weight_decay * w[r, s, c, k]
    w[r, s, c, k] -= lr[0] * g


def order(w: np.ndarray, groups: int, kind: str, seed: int, stream: int) -> np.ndarray:
    """Input channels (C,) int32 in the order of input-channel selection, of w (R, S, C/G, K).

    w: weights, or their gradient. kind: "random", from the seed; else largest L2 norm first, of equal ones the lower.
    """
    r, s, depth, k = w.shape
    if kind == "random":
        return random.permutation(seed, stream, 0, depth * groups).astype(np.int32)
    squares = np.square(w, dtype=np.float64).reshape(r * s, depth, groups, k // groups).sum((0, 3)).T
    return np.argsort(-squares.reshape(-1), kind="stable").astype(np.int32)


_OWN = sys.modules[__name__]


@register_method
@dataclass(frozen=True)
class SparseUpdate(Rule):
    """The rule of a Plan that trains a few input channels of each trained convolution at a time.

    ratio: share of the input channels that is trained at once, above 0 and at most 1. order: "norm", "random" or
    "gradient".
    fixed_first, fixed_last: shares of the steps, at the beginning and at the end, that train block 0; between them each
    step trains the next block. (0, 0) is dynamic throughout, (1, 0) fixed throughout. scaling: of gradients of whole
    numbers, "aware" as the optimizer's `scaled` says, "none" without (`ops.quantized_sgd`); floats have none.
    ValueError for other values.
    """

    ratio: float = 0.02
    order: str = "norm"
    fixed_first: float = 0.1
    fixed_last: float = 0.2
    scaling: str = "aware"

    method: ClassVar[str] = "sparse-update"
    states: ClassVar[Statement] = Statement(
        "rule", 60,
        "sparse-update:ratio=0.02,order=norm (or random, gradient; layers=K: the last K convolutions)",
        {"ratio": float, LAYERS: int, "order": ORDERS, "fixed_first": float, "fixed_last": float,
         "scaling": SCALINGS},
        {
            "instances": "the chosen instances train the chosen channels",
            "prunes":
                "dw of the chosen input and the kept output channels, dx of the kept ones; with groups dw is not "
                "pruned",
            "filters":
                "the chosen channels are stored as patch sums, dx is filtered; with groups dw of the chosen ones is "
                "exact",
        },
        plain_sgd="the trained channels change from step to step, and the arrays that {optimizer} keeps for all of "
        "them would cost the memory that it saves",
        fitted="ratio", grid=Grid("ratio", (0.02, 0.05, 0.1, 0.2, 0.5), 1.0), mark="D",
        tried=Tried(timed=({"ratio": 0.1},)),
    )  # fmt: skip
    operators: ClassVar[tuple[str, ...]] = (CONVOLUTION, WHOLE)
    priced: ClassVar[tuple[str, ...]] = ("ratio",)

    def __post_init__(self):
        arguments.numbers(ratio=self.ratio, fixed_first=self.fixed_first, fixed_last=self.fixed_last)
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be a share above 0 and at most 1, got {self.ratio}")
        if self.order not in ORDERS:
            raise ValueError(f"order must be {', '.join(ORDERS[:-1])} or {ORDERS[-1]}, got {self.order!r}")
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be {' or '.join(SCALINGS)}, got {self.scaling!r}")
        for name in ("fixed_first", "fixed_last"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share of the steps from 0 to 1, got {getattr(self, name)}")
        if self.fixed_first + self.fixed_last > 1:
            raise ValueError(f"fixed_first and fixed_last are {self.fixed_first} and {self.fixed_last}: more than 1")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "SparseUpdate":
        """With any share, in an order that needs no first mini-batch."""
        return cls(pick(1, 19) / 20, order=("norm", "random")[pick(0, 1)])

    def count(self, channels: int) -> int:
        """M of the input-channel selection: how many of `channels` are trained at once."""
        return part(self.ratio, channels)

    def letters(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The letter M of a node with these sizes."""
        return {"M": self.count(sizes["C"])}

    def bind(self, node: TrainedLayer) -> None:
        """Add its passes to a node's: the gradient of the chosen channels, and their update."""
        own = sparse_update_whole if node.whole else _OWN
        node.add(choose, own.take_x)
        if node.sizes["G"] == 1:
            node.names |= {"x": "x_chosen"}
            node.w_letters |= {"C": "M"}
        else:
            node.add(own.grad_w)
        node.add(own.update)

    def constants(self) -> dict[str, Callable[[np.ndarray, int, int, int], np.ndarray]]:
        """The order of a layer's channels."""
        return {"order": lambda w, groups, seed, stream: order(w, groups, self.order, seed, stream)}

    def updating(self) -> dict:
        """No scaling of gradients, biases of whole numbers included, where it is switched off."""
        return {"scaled": False} if self.scaling == "none" else {}

    def scalars(self) -> dict[str, Callable[["Moment"], float]]:
        """The number of the block that an update trains."""
        return {"block": lambda now: self.block(now.made, now.planned, now.before)}

    def learnt(self) -> tuple[str, ...]:
        """The order, where it is that of the gradients."""
        return ("order",) if self.order == "gradient" else ()

    def wrong(self, name: str, values: np.ndarray) -> str | None:
        """An order of channels (C,) must have each of them once: kernels index with it."""
        right = np.array_equal(np.sort(values), np.arange(len(values)))
        return None if right else f"is no order of {len(values)} channels"

    def block(self, step: int, steps: int, before: int = 0) -> int:
        """Block that update `step` (from 0) of a run of `steps` trains, by the three stages.

        before: updates before the run, by which its cycle goes on: short runs would never come to the last channels.
        """
        first, last = round(self.fixed_first * steps), steps - round(self.fixed_last * steps)
        return before + step - first if first <= step < last else 0

    def cycle(self, channels: int) -> int:
        """Steps in which each of `channels` is visited."""
        return math.ceil(channels / self.count(channels))
