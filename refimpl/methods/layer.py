"""How the rules of a plan work together on one trained layer: a convolution, or for rules that say so a linear one.

Each rule adds its passes to the layer's and tells the next one under which names it finds what is left to do: error map
pruning leaves a convolution with fewer output channels, sparse update one with fewer input channels for dw, gradient
filtering products on patches; 8-bit training or the dense passes do what is left. The first pass that writes an array
is the one that is called: a rule that adds one which writes y replaces the forward pass of its node.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..kernels.passes import Bound, Pass
from ..ops import conv2d, linear, quantized_conv2d
from .registry import Statement

if TYPE_CHECKING:
    from ..compiler.ir import Moment
    from ..graph import Graph, Node

# Operators whose gradients the rules put together: of floats, and of whole numbers.
CONVOLUTION, LINEAR, WHOLE = "conv2d", "linear", "quantized_conv2d"
DENSE = {  # → their own passes
    name: {"y": op.forward, "dx": op.grad_x, "dw": op.grad_w, "db": op.grad_b}
    for name, op in ((CONVOLUTION, conv2d), (LINEAR, linear), (WHOLE, quantized_conv2d))
}


@dataclass
class TrainedLayer:
    """A layer whose gradients the rules put together.

    attrs, sizes: of the node, letters of the rules included. operator: its name. names: array of the layer that is left
    to do → array of the node; letters: its letters → letters of the node; w_letters: those that hold for dw only.
    products: the pass that is left to do for dx and the one for dw, which rules of a later stage may replace by others.
    """

    attrs: dict
    sizes: dict[str, int]
    operator: str = CONVOLUTION
    filtered: bool = False
    passes: list[Bound] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)
    w_letters: dict[str, str] = field(default_factory=dict)
    products: dict[str, Pass] = field(init=False)

    def __post_init__(self):
        self.products = {gradient: self.dense[gradient] for gradient in ("dx", "dw")}

    @property
    def whole(self) -> bool:
        """Is it one in whole numbers?"""
        return self.operator == WHOLE

    @property
    def dense(self) -> dict[str, Pass]:
        """What the operator itself does: of y, dx, dw and db."""
        return DENSE[self.operator]

    @property
    def depthwise(self) -> bool:
        """Is it a convolution with one channel a group?"""
        return 1 < self.sizes["G"] == self.sizes["C"] == self.sizes["K"]

    def add(self, *passes: Pass) -> None:
        """Add passes on the node's own arrays."""
        self.passes += [Bound(p) for p in passes]

    def add_grad_b(self, names: Mapping[str, str], letters: Mapping[str, str]) -> None:
        """Add the dense pass that computes db, on other arrays and letters of the node."""
        self.passes.append(Bound(self.dense["db"], names, letters))

    def finish_x(self, *passes: Pass) -> None:
        """Add passes that compute dx of the layer that is left."""
        self._finish(passes, self.letters)

    def finish_w(self, *passes: Pass) -> None:
        """Add passes that compute dw or db of the layer that is left."""
        self._finish(passes, self.letters | self.w_letters)

    def _finish(self, passes: Iterable[Pass], letters: Mapping[str, str]) -> None:
        for p in passes:
            self.passes.append(Bound(p, {a: n for a, n in self.names.items() if a in p.arrays}, letters))


class Rule:
    """A method of the kind "rule": passes that replace gradients of trained layers, and what these read.

    operators: of the layers, CONVOLUTION alone or LINEAR and WHOLE too. stage: its place among the rules when they are
    bound, small ones first. priced: settings that sizes and costs depend on, which a closed form takes as symbols.
    stream: the first of the random streams of its nodes, whose attribute `stream` is that plus the node's place; None
    where it draws nothing.
    """

    operators: ClassVar[tuple[str, ...]] = (CONVOLUTION,)
    method: ClassVar[str]
    states: ClassVar[Statement]
    stage: ClassVar[int] = 0
    priced: ClassVar[tuple[str, ...]] = ()
    stream: ClassVar[int | None] = None

    @property
    def rounding(self) -> float:
        """How far, relative to its norm, a gradient may jump where a number is rounded the other way; 0: nowhere."""
        return 0.0

    def attrs(self) -> dict:
        """The attributes that its passes take beside those of the layer."""
        return {}

    def updating(self) -> dict:
        """Attributes of the optimizer's updates that it sets for the whole step; none by default."""
        return {}

    def letters(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Letters of its own, of a node with these sizes, that no array tells."""
        return {}

    def bind(self, node: TrainedLayer) -> None:
        """Add its passes to those of a node; every rule has its own."""
        raise NotImplementedError(f"the rule {type(self).__name__} must have bind(node), which adds its passes")

    def statistics(self) -> tuple[Pass, ...]:
        """Passes that go before those of a norm that trains with the statistics of the batch, none by default."""
        return ()

    def constants(self) -> dict[str, Callable[[np.ndarray, int, int, int], np.ndarray]]:
        """Arrays that its passes read and that stay: name → `make(w, groups, seed, stream)`, before the first step.

        w: the node's weights (R, S, C/G, K). stream: of random numbers, the node's own.
        """
        return {}

    def scalars(self) -> dict[str, Callable[["Moment"], float]]:
        """What the host tells its passes before a step: name → `value(moment)`, a `Scalar`."""
        return {}

    def learnt(self) -> tuple[str, ...]:
        """Its constants that are made anew at a run's first mini-batch, of a node's dense gradient in place of w."""
        return ()

    def wrong(self, name: str, values: np.ndarray) -> str | None:
        """What is wrong with a learnt constant that a saved run holds, such as `is no order`; None where nothing is."""
        return None


def rules_for(rules: Sequence[Rule], graph: "Graph", node: "Node") -> list[Rule]:
    """Those of the rules that are for a trained node; ValueError where one takes convolutions of floats alone."""
    own = [rule for rule in rules if node.op in rule.operators]
    if node.op == WHOLE and len(own) < len(rules):
        other = next(rule for rule in rules if rule not in own)
        raise ValueError(
            f"{other.method} computes with floats, but {node.name} of {graph.name} is of whole numbers: name another "
            "method, or take the net of floats"
        )
    return own


def bind(rules: Iterable, operator: str, attrs: Mapping, sizes: Mapping[str, int]) -> TrainedLayer:
    """The passes, attributes and sizes of a trained layer under `rules`, each a `Rule` for such an operator.

    sizes: without letters that stand for several axes, which the arrays of each pass tell.
    """
    rules = sorted(rules, key=lambda rule: rule.stage)
    filtered = any("filters" in rule.states.traits for rule in rules)
    node = TrainedLayer(dict(attrs), dict(sizes), operator, filtered)
    for rule in rules:
        node.attrs |= rule.attrs()
        node.sizes |= rule.letters(node.sizes)
    for rule in rules:
        rule.bind(node)
    node.finish_x(node.products["dx"])
    node.finish_w(node.products["dw"], node.dense["db"])
    return node
