"""Forward mode: the derivative of a net's loss along a direction of its parameters, without a way back.

The tangent tx of an array x is its derivative along the direction. Those of parameters are given; those of tensors
follow from what operators state as TANGENT (`refimpl.ops`), node by node, each right after its node, so that no map is
kept for longer. The last is tloss = ∇L·v, the factor of a forward gradient (arXiv 2411.04036 eq. (1)). An array that
depends on no parameter with a tangent has none, and where the loss does not depend on it nothing is derived.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..kernels.passes import Bound
from .backward import Partial, total
from .ir import ALWAYS, Buffer

if TYPE_CHECKING:
    from .derive import Derivation, Resolved

# `tangent(net, name, parameter)`: that of a parameter, in its shape, None where it is zero. It is asked for once, where
# the first node uses the parameter, and may emit calls that write it.
Tangent = Callable[["Derivation", str, Buffer], Buffer | None]


class ForwardMode:
    """Derives the tangents of a net beside its forward section."""

    def __init__(self, net: "Derivation", tangent: Tangent):
        self.net, self.tangent = net, tangent
        self.tensors: dict[str, Buffer] = {}  # tensor → its tangent
        self.parameters: dict[str, Buffer | None] = {}  # of those that a node has used
        self.wanted = {net.graph.output}  # tensors that the loss depends on
        for node in reversed(net.graph.needed()):
            if self.wanted.intersection(node.outputs):
                self.wanted.update(node.passing)

    def after(self, resolved: "Resolved") -> None:
        """Derive the tangents of a node's outputs that the loss depends on, if any of what it reads has one."""
        node, op, net = resolved.node, resolved.op, self.net
        outputs = {f"t{local}": t for local, t in zip(op.outputs, node.outputs, strict=True) if t in self.wanted}
        if not outputs:
            return
        inputs = zip(op.locals(len(node.inputs)), node.inputs, strict=True)
        moved = [(local, x) for local, x in inputs if x in self.tensors and local not in op.stops]
        given = {f"t{local}": self.tensors[x] for local, x in moved}
        for local in op.params:
            if (name := node.params.get(local)) and (tangent := self.parameter(name)):
                given[f"t{local}"] = tangent
        if given:
            for array, tangent in self.along(resolved, list(outputs), given).items():
                tensor = outputs[array]
                self.tensors[tensor] = tangent.reshape(net.shapes[tensor])

    def parameter(self, name: str) -> Buffer | None:
        """The tangent of a parameter. One that several nodes read is made whatever blocks a step leaves out."""
        net = self.net
        if name not in self.parameters:
            here, net.when = net.when, net.used(name)
            self.parameters[name] = self.tangent(net, name, net.parameters[name])
            net.when = here
        return self.parameters[name]

    def stand_in(self, block: "Resolved", shortcut: str) -> None:
        """Let the tangent of the sum at the end of a residual block be its shortcut's where a step leaves that out."""
        net, ty = self.net, self.tensors.get(block.node.outputs[0])
        if ty is None:
            return
        tx = self.tensors[shortcut].reshape(ty.shape) if shortcut in self.tensors else None
        if tx is None or tx.root is not ty.root:
            net.copy(ALWAYS.also(gone=[block.name]), block.name, tx, ty)

    def loss(self, last: "Resolved") -> Buffer:
        """The tangent of the loss, (1,). ValueError where it depends on no parameter that has a tangent."""
        graph = self.net.graph
        if graph.output not in self.tensors:
            raise ValueError(f"the loss of {graph.name} depends on no parameter that has a tangent")
        return self.along(last, ["tloss"], {"tx": self.tensors[graph.output]})["tloss"]

    def along(self, resolved: "Resolved", arrays: list[str], given: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """Tangents of a node, by name, each the sum of its terms. ValueError where they do not follow from those given.

        arrays: their names. given: the tangents of what the node reads.
        """
        net, node, first = self.net, resolved.name, f"t{resolved.op.outputs[0]}"
        left = {array: set(given) for array in arrays}  # what no term of it has taken yet
        terms: dict[str, list[Buffer]] = {array: [] for array in arrays}
        for term in resolved.tangent:
            if isinstance(term, str):
                if term in left.get(first, ()):
                    left[first].remove(term)
                    terms[first].append(given[term])
                continue
            writes, needs = [array for array in arrays if array in term.writes], sources(resolved, term)
            there = set(given).intersection(*(left[array] for array in writes))
            taken = needs.keys() & there
            if writes and taken and all(name in there for name, must in needs.items() if must):
                resolved.arrays |= {name: given[name] for name in taken}
                net.call(resolved, term)
                for name in taken:
                    del resolved.arrays[name]
                for array in writes:
                    left[array] -= taken
                    terms[array].append(resolved.arrays.pop(array))
        for array, names in left.items():
            if names:
                raise ValueError(
                    f"there is no derivative through node {node} in forward mode: its operator {resolved.op.name} "
                    f"states no TANGENT that tells how {array} follows from {', '.join(sorted(names))}"
                )
        return {a: total(net, node, f"{node}.{a}", list(map(Partial, summed))) for a, summed in terms.items()}


def sources(resolved: "Resolved", term: Bound) -> dict[str, bool]:
    """The tangents of what a node reads that a term follows from, each: must it be there?"""
    node, op, needs = resolved.node, resolved.op, dict[str, bool]()
    tangents = {f"t{local}" for local in (*op.locals(len(node.inputs)), *op.params)}
    for a in term.passed.reads:
        name = term.name(a)
        if name in tangents:
            needs[name] = needs.get(name, False) or a not in term.passed.optional
        elif (writer := resolved.writer.get(name)) in resolved.tangent:
            needs |= sources(resolved, writer)
    return needs
