"""Which methods of a Plan combine, and how its rules work together on one convolution.

The methods state it, `COMBINATIONS` says of every pair of methods what the two do together, or why
not; how rules work together on a layer is in `methods.layer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from typing import Any

from ..methods.registry import Statement, known, of_kind


@dataclass(frozen=True)
class Combination:
    """Do two methods combine? text: what they do together, or why not."""

    supported: bool
    text: str


_TWICE = Combination(False, "its settings hold for the whole step: name it once")
_UNSAID = Combination(False, "neither says what the two do together")


def _combination(a: type[Any], b: type[Any]) -> Combination:
    if a is b:
        return _TWICE
    sides: tuple[tuple[Statement, type[Any]], ...] = ((a.states, b), (b.states, a))
    for words in (lambda m: (m.method,), lambda m: m.states.traits, lambda m: (m.states.kind,)):
        for supported, told in ((False, "refuses"), (True, "combines")):
            for said, other in sides:
                for word in words(other):
                    if word in getattr(said, told):
                        return Combination(supported, getattr(said, told)[word])
    return _UNSAID


def pairs() -> dict[tuple[str, str], Combination]:
    """Every pair of methods, each with itself too, in their order."""
    found = known()
    return {(a, b): _combination(found[a], found[b]) for a, b in combinations_with_replacement(found, 2)}


def __getattr__(name: str):
    """`METHODS`, `INSTANCES` (what enters a step) and `COMBINATIONS`, as the methods state them when they are read."""
    if name == "METHODS":
        return tuple(known())
    if name == "INSTANCES":
        return of_kind("instances")
    if name == "COMBINATIONS":
        return pairs()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_combination(methods: Sequence[str]) -> None:
    """ValueError with the reason where two of the methods of a step do not combine."""
    every = known()
    for pair in combinations(methods, 2):
        a, b = sorted(pair, key=list(every).index)
        found = _combination(every[a], every[b])
        if not found.supported:
            raise ValueError(
                f"{a} is named twice: {found.text}" if a == b else f"{a} and {b} do not combine: {found.text}"
            )


def combinations_table() -> str:
    """`COMBINATIONS` as a Markdown table; pairs with one second method and one text share a row."""
    rows, every = {("itself", _TWICE): ["any"]}, known()
    for (a, b), found in pairs().items():
        if found is not _TWICE:
            plain = every[a].states.kind == "plain"
            named = rows.setdefault(("any other" if plain else b, found), [])
            if a not in named:
                named.append(a)
    lines = [f"| {', '.join(a)} | {b} | {'yes' if c.supported else 'no'}: {c.text} |" for (b, c), a in rows.items()]
    return "\n".join(["| method | with | |", "|---|---|---|", *lines])
