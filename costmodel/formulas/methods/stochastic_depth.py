"""Stochastic depth (arXiv 1603.09382): how often each logical call of a step occurs. Its calls cost what they cost.

Blocks survive independently, so a call occurs with the probability of its own block. One thing ties blocks together:
backward stops at the first trained node that is there, and that may lie in a block that a step leaves out. Given which
of those blocks is the first to survive, every call's occurrence is a sum over the other blocks.
"""

import math
from collections import Counter
from collections.abc import Iterable

from refimpl.compiler.ir import Call
from refimpl.compiler.program import Program
from refimpl.methods.stochastic_depth import Block


def occurrence(program: Program) -> dict[Call, float]:
    """The probability of each logical call of the step that leaves nothing out, exact up to rounding."""
    blocks, mine = program.blocks, {identity(call): call for call in program.step}
    survival = dict(zip(blocks, program.plan.depth.probabilities(len(blocks)), strict=True))

    def calls(left_out: Iterable[Block]) -> set[Call]:
        step = program.step_without(frozenset(b.name for b in left_out))
        return {mine[identity(call)] for call in step}

    found: Counter[Call] = Counter()
    early = _early(program)
    for i, first in enumerate([*early, None]):
        share = math.prod(1 - survival[b] for b in early[:i]) * survival.get(first, 1.0)
        others = [b for b in blocks if b not in early[: i + 1]]
        fewest = calls(b for b in blocks if b is not first)
        found.update(dict.fromkeys(fewest, share))
        for b in others:
            more = calls(o for o in blocks if o not in (first, b)) - fewest
            found.update(dict.fromkeys(more, share * survival[b]))
    return dict(found)


def identity(call: Call) -> tuple:
    """What a call is in any step of a plan, whatever blocks that one leaves out."""
    return call.section, call.node, call.passed.operator, call.passed.name, *(b.name for b in call.writes)


def _early(program: Program) -> list[Block]:
    """Blocks with trained nodes that lie before the first trained node outside of all blocks."""
    trained = program.plan.trained(program.graph)
    inside = frozenset().union(*(b.nodes for b in program.blocks))
    before = []
    for node in program.graph.nodes:
        if node.name in trained and node.name not in inside:
            break
        before.append(node.name)
    return [b for b in program.blocks if b.name in before and b.nodes & trained.keys()]
