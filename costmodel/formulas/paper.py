"""How arXiv 2301.00330 (gradient filtering) counts a training step, to set a plan beside its Tables 2 and 11.

`flops` is the backward pass alone, `saved_bytes` ("Mem") the stored input of every trained convolution in float32,
pooled where it is filtered. Both follow from the shapes of the graph and from the plan. The paper prints its results,
not its counting; every formula here is [ours, deduced] from the figures it prints, except eq. (15):

- A filtered convolution costs dw on the patch means, dx on the patch means (eq. (15)), w̃ and the means of dy. Pooling
  x belongs to the forward pass and spreading dx over the map is free. These reproduce filtered rows within 0.15 %.
- A dense dw and dx count padded taps too. Element-wise layers are left out: the dense rows, which hold them, are
  reproduced within 0.4 %.
- dx is counted only where something trained lies upstream, w̃ only where dx is.
- Batch norm is fused into the convolutions (supplement E.2.4) and biases cost nothing.
- Groups [ours]: a product of C·K becomes C·K/G, as the groups are apart; for a depthwise convolution it is C.
- A batch [ours]: sums over the patches run over the batch too, and w̃ is computed once a step. The paper has N = 1.
- The dilated branch of the filter [ours]: dx is a convolution of R·S taps on the patch grid and needs no w̃.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import sympy as sp

from refimpl.graph import Graph, Node
from refimpl.plan.plan import Plan

from .cost import C, D, G, H, K, N, P, Q, R, S, U, V, W, evaluator, load_file

FLOAT_BYTES = 4
products = C * K / G  # pairs of an input and an output channel that meet

FORMULAS: dict[str, sp.Expr] = {
    # dense convolution
    "grad_w": products * (R * S * N * P * Q + N * P * Q - 1),
    "grad_x": 2 * N * products * R * S * P * Q,
    # filtered convolution: U·V patches
    "patch_grad_w": (2 * N * U * V - 1) * products,
    "patch_grad": N * U * V * C * (2 * K / G - 1),  # eq. (15)
    "sum_w": (R * S - 1) * products,
    "pool_dy": N * K * (P * Q + U * V),
    "patch_grad_dilated": N * U * V * C * (2 * R * S * K / G - 1),
    # classifier: 3·D·K where its input needs a gradient
    "linear_grad_w": N * D * K,
    "linear_grad_x": 2 * N * D * K,
    # bytes of the input that a trained convolution keeps
    "saved": FLOAT_BYTES * N * H * W * C,
    "saved_patches": FLOAT_BYTES * N * U * V * C,
}


class Counted(NamedTuple):
    """How the paper counts a convolution under a rule: names of FORMULAS, and the letters that these need."""

    backward: tuple[str, ...]
    dx: tuple[str, ...]  # where a gradient of x is needed
    stored: str
    letters: Mapping[str, int]


_RULES: dict[type, Callable[..., Counted]] = {}


def counts(rule: type) -> Callable:
    """Record `function(rule, sizes, attrs)`, which says how the paper counts a convolution under a kind of rule."""

    def record(function: Callable[..., Counted]) -> Callable[..., Counted]:
        _RULES[rule] = function
        return function

    return record


def _counting(rule) -> Callable[..., Counted] | None:
    """What a rule's file of costs recorded for it, None where the paper does not count it."""
    load_file(type(rule).__module__.rpartition(".")[2])
    return _RULES.get(type(rule))


@dataclass(frozen=True)
class PaperLayer:
    """What the paper counts for one node: backward operations by formula name, and stored bytes."""

    name: str
    terms: Mapping[str, int]
    saved_bytes: int

    @property
    def flops(self) -> int:
        """Operations of the node's backward pass."""
        return sum(self.terms.values())


@dataclass(frozen=True)
class PaperPrice:
    """What the paper counts for one step: only layers that take part, in node order."""

    layers: list[PaperLayer]

    @property
    def flops(self) -> int:
        """Operations of the backward pass alone."""
        return sum(layer.flops for layer in self.layers)

    @property
    def saved_bytes(self) -> int:
        """Stored inputs of the trained convolutions ("Mem"), in bytes of float32."""
        return sum(layer.saved_bytes for layer in self.layers)


def price(graph: Graph, plan: Plan, n: int = 1, size: tuple[int, int] | None = None) -> PaperPrice:
    """Price a training step on n samples in the paper's counting, eq. (15) for a filtered dx.

    size: rows and columns of the input.

    ValueError where the plan has a rule that the paper does not count.
    """
    for rule in filter(None, (plan.instances, *plan.rules, plan.depth)):
        if _counting(rule) is None:
            raise ValueError(f"the counting of arXiv 2301.00330 knows dense and filtered gradients, not {rule.method}")
    shapes = graph.shapes(n, size)
    trained = plan.trained(graph)
    upstream: set[str] = set()  # tensors with something trained at or before them
    layers = []
    for node in graph.nodes:
        wants_dx = any(t in upstream for t in node.inputs)
        if wants_dx or node.name in trained:
            upstream.add(node.name)
            layer = _layer(graph, plan, node, shapes, "w" in trained.get(node.name, ()), wants_dx)
            if layer.terms or layer.saved_bytes:
                layers.append(layer)
    return PaperPrice(layers)


def _layer(graph: Graph, plan: Plan, node: Node, shapes: Mapping, trains: bool, wants_dx: bool) -> PaperLayer:
    names, stored = [], []
    if node.op == "linear":
        names = ["linear_grad_w"] * trains + ["linear_grad_x"] * wants_dx
        sizes = dict(zip("ND", shapes[node.inputs[0]], strict=True)) | {"K": shapes[node.name][1]}
    elif node.op == "conv2d":
        sizes = dict(zip("NHWC", shapes[node.inputs[0]], strict=True))
        sizes |= dict(zip("NPQK", shapes[node.name], strict=True))
        sizes["R"], sizes["S"], depth, _ = graph.parameters[node.params["w"]].shape
        sizes["G"] = sizes["C"] // depth
        for rule in plan.rules_of(node) if trains else ():
            counted = _counting(rule)
            assert counted, "price refuses other rules"
            found = counted(rule, sizes, node.attrs)
            names, stored = [*found.backward, *found.dx * wants_dx], [found.stored]
            sizes |= found.letters
        if not stored:
            names, stored = ["grad_w"] * trains + ["grad_x"] * wants_dx, ["saved"] * trains
    terms = {name: _value(name, sizes) for name in names}
    return PaperLayer(node.name, terms, sum(_value(name, sizes) for name in stored))


@cache
def _compiled(name: str):
    return evaluator(FORMULAS[name])


def _value(name: str, sizes: Mapping[str, int]) -> int:
    letters, function = _compiled(name)
    return int(function(*(sizes[letter] for letter in letters)))
