"""The weight gradient of every n-th output channel alone, 0 for the others: a method of the tests' own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import sympy as sp

from costmodel.formulas.cost import C, G, K, N, R, S, attribute, axis_taps, load, mac, register, store
from refimpl.kernels.geometry import CONV_TAP, conv_derive
from refimpl.kernels.passes import declare
from refimpl.methods.layer import Rule
from refimpl.methods.registry import Grid, Statement
from refimpl.ops import conv2d


def is_chosen(sizes, attrs) -> np.ndarray:
    """Class of each output channel: does it train?"""
    return (np.arange(sizes["K"]) % attrs["every"] == 0).astype(int)


@declare(conv2d.SHAPES, items="R S C/G K", writes="dw", derive=conv_derive, alike=CONV_TAP | {"K": is_chosen}, sums="N")
def grad_w(t, dw, dy, x, stride=(1, 1), dilation=(1, 1), pad=((0, 0), (0, 0)), every=1):
    """Gradient of w, (R, S, C/G, K), from dy and x, of the output channels that `every` divides."""
    t, k = divmod(t, dw.shape[3])
    t, c = divmod(t, dw.shape[2])
    r, s = divmod(t, dw.shape[1])
    depth = dw.shape[2]
    channel = k // (dw.shape[3] * depth // x.shape[3]) * depth + c
    total = dw.dtype.type(0)
    if k % every == 0:
        for n in range(x.shape[0]):
            for p in range(dy.shape[1]):
                h = p * stride[0] - pad[0][0] + r * dilation[0]
                if 0 <= h < x.shape[1]:
                    for q in range(dy.shape[2]):
                        v = q * stride[1] - pad[1][0] + s * dilation[1]
                        if 0 <= v < x.shape[2]:
                            total += x[n, h, v, channel] * dy[n, p, q, k]
    dw[r, s, c, k] = total


@dataclass(frozen=True)
class Comb(Rule):
    """Every n-th output channel trains. ValueError for a number below 1."""

    every: int = 2

    method: ClassVar[str] = "comb"
    states: ClassVar[Statement] = Statement(
        kind="rule",
        place=45,
        help="comb:every=2",
        settings={"every": int},
        combines={
            "error-map-pruning": "dx is pruned, dw is the comb's",
            "instances": "the chosen instances train the comb",
        },
        grid=Grid("every", (2, 3), exact=1),
        mark="P",
    )
    stage: ClassVar[int] = -1
    priced: ClassVar[tuple[str, ...]] = ("every",)

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")

    def attrs(self):
        """What its pass takes."""
        return {"every": self.every}

    def bind(self, node):
        """Its dw goes before the dense one."""
        node.add(grad_w)


chosen = sp.ceiling(K / attribute("every"))
register(
    "comb",
    grad_w=N * axis_taps(0) * axis_taps(1) * C / G * chosen * (2 * load + mac) + R * S * C / G * K * store,
)
