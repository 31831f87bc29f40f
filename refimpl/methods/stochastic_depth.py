"""Stochastic depth (SD, Huang et al. 2016, arXiv 1603.09382), which arXiv 2007.03213 compares with: shallow steps.

Each step leaves residual blocks out at random. Block l of L survives with probability p_l = 1 − (l / L)·(1 − p_L),
from nearly 1 at the input to p_L at the output, all samples of the step alike. A block that is left out is neither
computed nor trained: its output is its shortcut. At evaluation every block is there, its branch scaled by p_l.

Readings:
  [second-hand] The linear decay with p_L = 0.5, and the scale at evaluation.
  [ours] A block is a node that sums two tensors. Its branch is what lies before one input and not before the other,
         the shortcut; a shortcut's projection is always computed. Where either could be the branch, it is the one of
         more nodes. A block within another one's branch belongs to it.
  [ours] The scale is put into the branch's last batch norm (gamma, beta) or convolution (w, b), for evaluation and in
         saved weights, never in the weights that train; reshapes may stand behind it. A net that has made no step yet
         is evaluated as it was given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import arguments
from ..graph import Graph, Node
from ..kernels import random
from ..ops import operator, operators
from .registry import Other, Pick, Statement, register_method
from .strategy import Block, Modifier, Strategy, Turn

if TYPE_CHECKING:
    from ..compiler.program import Program
    from ..training.trainer import Trainer


def residual_blocks(graph: Graph) -> tuple[Block, ...]:
    """The residual blocks of a graph, in the order of its nodes; see the module's readings."""
    readers: dict[str | None, set[str | None]] = {}
    found = []
    for node in graph.nodes:
        for t in node.inputs:
            readers.setdefault(graph.tensors[t].producer, set()).add(node.name)
    for t in graph.outputs:
        readers.setdefault(graph.tensors[t].producer, set()).add(None)  # the host
    for node in graph.nodes:
        if not node.operator.is_sum:
            continue
        sides = []
        for ends, shortcut in (node.inputs, node.inputs[::-1]):
            last = graph.tensors[ends].producer
            branch = _before(graph, last, graph.tensors[shortcut].producer)
            own = branch | {node.name}
            if last in branch and all(readers[n] <= own for n in branch):
                sides.append(Block(node.name, shortcut, branch, last))
        if sides:
            found.append(max(sides, key=lambda block: len(block.nodes)))  # the first of two as long
    within = frozenset().union(*(b.nodes for b in found))
    return tuple(b for b in found if b.name not in within)


def _before(graph: Graph, last: str | None, other: str | None) -> frozenset[str]:
    """The nodes that a node depends on and another one does not, itself included; None: an input of the graph."""
    found = set()
    common = {other: True} if other is not None else {}
    if last is not None:
        common.setdefault(last, False)  # of the nodes reached: does the other one depend on them too?
    ahead = [-graph.place(name) for name in common]  # from the last one in the graph's order back
    heapify(ahead)
    while not all(common.values()):
        node = graph.nodes[-heappop(ahead)]
        shared = common.pop(node.name)
        if not shared:
            found.add(node.name)
        for name in (graph.tensors[t].producer for t in node.inputs):
            if name is not None:
                if name not in common:
                    heappush(ahead, -graph.place(name))
                common[name] = common.get(name, False) or shared
    return frozenset(found)


def ending(graph: Graph, block: Block) -> Node:
    """The last node of a block's branch that computes: what only gives its memory another shape is passed over."""
    node = graph.node(block.last)
    while node.operator.aliases.get("y") == "x":
        before = graph.tensors[node.inputs[0]].producer
        if before is None or before not in block.nodes:
            break
        node = graph.node(before)
    return node


@register_method
@dataclass(frozen=True)
class StochasticDepth(Modifier):
    """SD: the last residual block survives a step with probability `survival`, the ones before it more often.

    ValueError where it is not above 0 and at most 1.
    """

    survival: float = 0.5

    method: ClassVar[str] = "stochastic-depth"
    waits: ClassVar[bool] = False
    states: ClassVar[Statement] = Statement(
        "depth", 80, "stochastic-depth:survival=0.5", {"survival": float},
        dict.fromkeys(("instances", "rule", "bias"), "steps leave residual blocks out, and it works on the others"),
    )  # fmt: skip
    priced: ClassVar[tuple[str, ...]] = ("survival",)  # settings that sizes and costs depend on

    def __post_init__(self):
        arguments.numbers(survival=self.survival)
        if not 0 < self.survival <= 1:
            raise ValueError(f"survival must be a probability above 0 and at most 1, got {self.survival}")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "StochasticDepth":
        """With any probability."""
        return cls(pick(1, 19) / 20)

    def blocks(self, graph: Graph) -> tuple[Block, ...]:
        """The blocks of a graph; ValueError where it has none, or one whose branch cannot be scaled."""
        found = residual_blocks(graph)
        if not found:
            raise ValueError(f"{self.method} leaves residual blocks out of a step, but {graph.name} has none")
        users = graph.users()
        for block in found:
            last = ending(graph, block)
            for name in (last.params[local] for local in last.operator.scales if local in last.params):
                if others := [node.name for node, _ in users[name] if node.name != last.name]:
                    raise ValueError(
                        f"{self.method} scales {name} of {block.name} at evaluation, but in {graph.name} "
                        f"{', '.join(others)} has it too: let no layer share what ends a branch"
                    )
            if not last.operator.scales:
                scaled = [name for name in operators() if operator(name).scales]
                raise ValueError(
                    f"{self.method} needs branches that end in {' or '.join(scaled)}, which take the scale at "
                    f"evaluation, but that of {block.name} in {graph.name} ends in {last.name} ({last.op})"
                )
        return found

    def probabilities(self, count: int) -> list[float]:
        """p_l of `count` blocks, l = 1 … count."""
        return [1 - block / count * (1 - self.survival) for block in range(1, count + 1)]

    def dropped(self, blocks: Sequence[Block], seed: int, step: int) -> frozenset[str]:
        """Names of the blocks that a step leaves out."""
        draws = random.uniform(seed, random.DEPTH, step, len(blocks))
        return frozenset(
            b.name for b, draw, p in zip(blocks, draws, self.probabilities(len(blocks)), strict=True) if draw >= p
        )

    def scales(self, graph: Graph) -> dict[str, float]:
        """Parameter → factor at evaluation, of those that take their block's p_l."""
        blocks, found = self.blocks(graph), {}
        for block, p in zip(blocks, self.probabilities(len(blocks)), strict=True):
            last = ending(graph, block)
            for local in last.operator.scales:
                if local in last.params:
                    found[last.params[local]] = p
        return found

    def run(
        self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool, inner: Strategy
    ) -> float | None:  # fmt: skip
        """One step without the blocks that it leaves out."""
        program = trainer.program
        dropped = frozenset() if everything else self.dropped(program.blocks, trainer.seed, trainer.step)
        trainer.runner.leave_out(dropped)
        return inner.run(trainer, x, y, total, everything)

    def schedule(self, program: "Program", n: float, inner: Strategy) -> tuple[Turn, ...]:
        """Every call with the probability that a step makes it."""
        survival = dict(zip((b.name for b in program.blocks), self.probabilities(len(program.blocks)), strict=True))
        found = {when: when.probability(survival) for when in {call.when for call in program.step}}
        occurs = {call: found[call.when] for call in program.step}
        return tuple(turn._replace(calls=occurs) for turn in inner.schedule(program, n))
