"""How arXiv 2007.03213 (instance filter, error map pruning) counts, to set its printed shares beside ours.

The paper prints shares and one total, not its counting; all of this is [ours, deduced] from the figures that it prints:

- Only products of convolutions and linear layers count, padded taps too, as multiply-adds.
- A training step is forward, dw and dx. The dx of a convolution costs its taps at every element of the *input* map,
  R·S·C·K·H·W, not at every element of dy: stride² times as much, and more where a window has no padding. The first
  layer has no dx. With this the three printed training shares of filter nets come out to the printed digit, where
  P·Q in its place gives 4.9, 4.0 and 10.1 % for 5.9, 4.8 and 7.8 %.
- A score costs one addition for every weight and every element of the error map, per image.
"""

from collections.abc import Mapping
from functools import cache
from math import prod

import sympy as sp

from refimpl.graph import INPUT, Graph

from .cost import C, D, G, H, K, N, P, Q, R, S, W, evaluator

FORMULAS: dict[str, sp.Expr] = {
    "forward": N * P * Q * R * S * C * K / G,
    "grad_w": N * P * Q * R * S * C * K / G,
    "grad_x": N * H * W * R * S * C * K / G,
    "score": R * S * C * K / G + N * P * Q * K,
    "linear": N * D * K,
}


def macs(graph: Graph, n: int = 1, size: tuple[int, int] | None = None) -> dict[str, int]:
    """Multiply-adds of a step on n samples of (rows, columns) `size`, in the paper's counting.

    `forward`; `backward`, dw and dx of every layer; `training`, both; `scoring`, the scores of every convolution.
    """
    shapes = graph.shapes(n, size)
    totals = dict.fromkeys(("forward", "backward", "scoring"), 0)
    for node in graph.nodes:
        first = node.inputs[0] == INPUT
        if node.op == "linear":
            value = prod(shapes[node.inputs[0]]) * shapes[node.name][1]
            totals["forward"] += value
            totals["backward"] += value * (1 if first else 2)
        elif node.op == "conv2d":
            sizes = dict(zip("NHWC", shapes[node.inputs[0]], strict=True))
            sizes |= dict(zip("NPQK", shapes[node.name], strict=True))
            sizes["R"], sizes["S"], depth, _ = graph.parameters[node.params["w"]].shape
            sizes["G"] = sizes["C"] // depth
            totals["forward"] += _value("forward", sizes)
            totals["backward"] += _value("grad_w", sizes) + (0 if first else _value("grad_x", sizes))
            totals["scoring"] += _value("score", sizes)
    return {**totals, "training": totals["forward"] + totals["backward"]}


@cache
def _compiled(name: str):
    return evaluator(FORMULAS[name])


def _value(name: str, sizes: Mapping[str, int]) -> int:
    letters, function = _compiled(name)
    return int(function(*(sizes[letter] for letter in letters)))
