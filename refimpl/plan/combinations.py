"""Which methods of a Plan combine, and how its rules work together on one convolution.

`COMBINATIONS` says of every pair of methods what the two do together, or why not; how rules work together on a
convolution is in `methods.convolution`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement

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
