"""Which methods of a Plan combine, and how its rules work together on one convolution.

`COMBINATIONS` says of every pair of methods what the two do together, or why not. On one convolution each rule adds its
passes to the node's and tells the next one under which names it finds the convolution that is left to do: error map
pruning leaves a convolution with fewer output channels, sparse update one with fewer input channels for dw, and
gradient filtering or the dense passes do it. The first pass that writes an array is the one that is called.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, combinations_with_replacement

from .ops import conv2d
from .passes import Bound, Pass

INSTANCES = ("instance-filter", "hard-examples", "random-skip")  # what enters a step
METHODS = (
    "backprop",
    *INSTANCES,
    "error-map-pruning",
    "gradient-filter",
    "sparse-update",
    "bias-only",
    "stochastic-depth",
)


@dataclass(frozen=True)
class Combination:
    """Do two methods combine? text: what they do together, or why not."""

    supported: bool
    text: str


_ON_INSTANCES = {
    "error-map-pruning": "the error map of the chosen instances is pruned by channel",
    "gradient-filter": "the gradients of the chosen instances are filtered",
    "sparse-update": "the chosen instances train the chosen channels",
    "bias-only": "the chosen instances train biases",
}
_TOGETHER = {
    ("error-map-pruning", "gradient-filter"):
        "the kept channels of the error map are filtered; convolutions with groups are filtered, not pruned",
    ("error-map-pruning", "sparse-update"):
        "dw of the chosen input and the kept output channels, dx of the kept ones; with groups dw is not pruned",
    ("gradient-filter", "sparse-update"):
        "the chosen channels are stored as patch sums, dx is filtered; with groups dw of the chosen ones is exact",
}  # fmt: skip
_ALONE = Combination(False, "backprop is the plain method, to be named alone")
_TWICE = Combination(False, "its settings hold for the whole step: name it once")
_ONE_CHOICE = Combination(False, "both choose which instances train")
_ON_BLOCKS = Combination(True, "steps leave residual blocks out, and it works on the others")
_JUDGED_WHOLE = Combination(
    False, "it judges instances by the net in inference mode, whose branches then need a scale that training lacks"
)
_NO_WEIGHTS = Combination(False, "bias-only trains no weights of convolutions, whose gradients the other replaces")


def _combination(a: str, b: str) -> Combination:
    if a == b:
        return _TWICE
    if a == "backprop":
        return _ALONE
    if b == "stochastic-depth":
        return _JUDGED_WHOLE if a in ("instance-filter", "hard-examples") else _ON_BLOCKS
    if a in INSTANCES:
        return _ONE_CHOICE if b in INSTANCES else Combination(True, _ON_INSTANCES[b])
    return Combination(True, _TOGETHER[a, b]) if (a, b) in _TOGETHER else _NO_WEIGHTS


# Every pair of METHODS, each with itself too, in their order.
COMBINATIONS = {pair: _combination(*pair) for pair in combinations_with_replacement(METHODS, 2)}


def check_combination(methods: Sequence[str]) -> None:
    """ValueError with the reason where two of the methods of a step do not combine."""
    for pair in combinations(methods, 2):
        a, b = sorted(pair, key=METHODS.index)
        found = COMBINATIONS[a, b]
        if not found.supported:
            raise ValueError(
                f"{a} is named twice: {found.text}" if a == b else f"{a} and {b} do not combine: {found.text}"
            )


def combinations_table() -> str:
    """`COMBINATIONS` as a Markdown table; pairs with one second method and one text share a row."""
    rows = {("itself", _TWICE): ["any"], ("any other", _ALONE): ["backprop"]}
    for (a, b), found in COMBINATIONS.items():
        if found not in (_TWICE, _ALONE):
            rows.setdefault((b, found), []).append(a)
    lines = [f"| {', '.join(a)} | {b} | {'yes' if c.supported else 'no'}: {c.text} |" for (b, c), a in rows.items()]
    return "\n".join(["| method | with | |", "|---|---|---|", *lines])


@dataclass
class Node:
    """A convolution whose gradients the rules put together.

    attrs, sizes: of the node, letters of the rules included. names: array of the convolution that is left to do → array
    of the node; letters: its letters → letters of the node; w_letters: those that hold for dw only.
    """

    attrs: dict
    sizes: dict[str, int]
    filtered: bool = False
    passes: list[Bound] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    letters: dict[str, str] = field(default_factory=dict)
    w_letters: dict[str, str] = field(default_factory=dict)

    @property
    def depthwise(self) -> bool:
        """One channel a group?"""
        return 1 < self.sizes["G"] == self.sizes["C"] == self.sizes["K"]

    def add(self, *passes: Pass) -> None:
        """Add passes on the node's own arrays."""
        self.passes += [Bound(p) for p in passes]

    def finish_x(self, *passes: Pass) -> None:
        """Add passes that compute dx of the convolution that is left."""
        self._finish(passes, self.letters)

    def finish_w(self, *passes: Pass) -> None:
        """Add passes that compute dw or db of the convolution that is left."""
        self._finish(passes, self.letters | self.w_letters)

    def _finish(self, passes: Iterable[Pass], letters: Mapping[str, str]) -> None:
        for p in passes:
            self.passes.append(Bound(p, {a: n for a, n in self.names.items() if a in p.arrays}, letters))


def bind(rules: Iterable, attrs: Mapping, sizes: Mapping[str, int]) -> Node:
    """The passes, attributes and sizes of a trained convolution under `rules`."""
    from .methods.error_map_pruning import ErrorMapPruning
    from .methods.gradient_filter import GradientFilter
    from .methods.sparse_update import SparseUpdate

    rules = sorted(rules, key=lambda r: (SparseUpdate, ErrorMapPruning, GradientFilter).index(type(r)))
    node = Node(dict(attrs), dict(sizes), filtered=any(isinstance(r, GradientFilter) for r in rules))
    for rule in rules:
        node.attrs |= rule.attrs()
        node.sizes |= rule.letters(node.sizes)
    for rule in rules:
        rule.bind(node)
    node.finish_x(conv2d.grad_x)
    node.finish_w(conv2d.grad_w, conv2d.grad_b)
    return node
