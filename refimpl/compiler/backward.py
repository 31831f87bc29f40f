"""The way back of a net: the gradients that its trained parameters need, added up where several meet, and looked at."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..kernels.passes import Pass
from ..ops import operator
from .ir import ALWAYS, Buffer

if TYPE_CHECKING:
    from .derive import Derivation, Resolved

NEVER: frozenset[str] = frozenset()  # one of no blocks must be there


class Partial(NamedTuple):
    """A gradient from one of the nodes that use a tensor or parameter.

    block: the residual block in which that node lies, where it may be left out and what it uses stays.
    """

    gradient: Buffer
    block: str | None = None


def backward(net: "Derivation", nodes: "list[Resolved]", loss: "Resolved") -> None:
    """Walk a net backwards; a gradient is computed only where a trained node lies upstream.

    nodes: those of its forward section, in order. It leaves the net's `gradients`, and when each is there in `updated`.
    """
    net.section = "backward"
    needed = blocks_needed(net, nodes)
    if needed[net.graph.output] == NEVER:
        return
    net.when = ALWAYS.also(any=needed[net.graph.output])
    net.call(loss, loss.writer["dx"], late=True)
    arriving: dict[str, list[Partial]] = {net.graph.output: [Partial(loss.arrays["dx"])]}
    stands = net.graph.tensors[net.graph.output].quantized
    if stands and stands.scale in needed and "dx_exponent" in loss.writer:
        arriving[stands.scale] = [Partial(net.demand(loss, "dx_exponent"))]
    uses: dict[str, list[Partial]] = {}  # parameter → its gradients of the nodes that use it
    for resolved in reversed(nodes):
        node, op = resolved.node, resolved.op
        tensors = dict(zip(op.outputs, node.outputs, strict=True))
        arrived = {local: arriving[tensor] for local, tensor in tensors.items() if tensor in arriving}
        if needed[node.name] == NEVER or not arrived:
            continue
        block = net.inside.get(node.name)
        net.when = here = net.there(block).also(any=needed[node.name])
        for local, partials in arrived.items():
            dy = total(net, node.name, f"{node.name}.d{local}", partials)
            resolved.arrays[f"d{local}"] = dy.reshape(net.shapes[tensors[local]])
        if len(arrived) > 1 and (made := [f"d{local}" for local in arrived if f"d{local}" in resolved.writer]):
            raise ValueError(
                f"{node.name} cannot train: gradients arrive at {', '.join(arrived)}, and {op.name} makes {made[0]} of "
                "another one: let the net read one of them"
            )
        for local in net.trained.get(node.name, ()):
            uses.setdefault(node.params[local], []).append(Partial(net.demand(resolved, f"d{local}"), block))
        for local, tensor in zip(op.locals(len(node.inputs)), node.inputs, strict=True):
            if needed[tensor] == NEVER or local in op.stops:
                continue
            if f"d{local}" not in resolved.writer and f"d{local}" not in op.aliases:
                raise ValueError(
                    f"the layers before {node.name} cannot train: {op.name} passes no gradient to its {local}; "
                    "train fewer layers"
                )
            net.when = here if len(node.inputs) > 1 else net.there(block).also(any=needed[tensor])
            producer = net.graph.tensors[tensor].producer
            elsewhere = block != (producer and net.inside.get(producer))
            partial = Partial(net.demand(resolved, f"d{local}"), block if elsewhere else None)
            arriving.setdefault(tensor, []).append(partial)
    for name, partials in uses.items():
        net.when = ALWAYS
        net.gradients[name] = total(net, name, f"{name}.gradient", partials)
        blocks = [partial.block for partial in partials if partial.block is not None]
        net.updated[name] = ALWAYS.also(any=blocks if len(blocks) == len(partials) else None)
    net.moves.finish()


def blocks_needed(net: "Derivation", nodes: "list[Resolved]") -> dict[str, frozenset[str] | None]:
    """Of each tensor the blocks of which one must be there for its gradient to be needed, None where it always is.

    It is needed where a trained node that is there lies at or before it.
    """
    needed: dict[str, frozenset[str] | None] = dict.fromkeys(net.graph.inputs, NEVER)
    for node in (resolved.node for resolved in nodes):
        sources = [needed[tensor] for tensor in node.passing]
        if node.name in net.trained:
            block = net.inside.get(node.name)
            sources.append(None if block is None else frozenset([block]))
        some = [blocks for blocks in sources if blocks is not None]
        needed |= dict.fromkeys(node.outputs, NEVER.union(*some) if len(some) == len(sources) else None)
    return needed


def total(net: "Derivation", node: str, name: str, partials: list[Partial]) -> Buffer:
    """Sum of the gradients that reach a tensor from its consumers, or a parameter from the nodes that use it.

    node: to which the calls that add belong; name: that of the sum.
    """
    add, base = operator("add").passes["forward"], net.when
    (so_far, block), *others = sorted(partials, key=lambda partial: partial.block is not None)
    blocks = None if block is None else frozenset([block])  # there is a sum so far where one of these is there
    for i, (gradient, block) in enumerate(others):
        out = net.buffer(f"{name}{i or ''}", gradient.shape, batched=gradient.batched)
        so_far = so_far.reshape(gradient.shape)
        if block is not None:
            net.copy(base.also(gone=[block], any=blocks), node, so_far, out)
            if blocks is not None:
                net.copy(base.also(there=[block], gone=blocks), node, gradient, out)
        net.when = base.also(there=[block] if block else (), any=blocks)
        net.emit(node, add, {"a": so_far, "b": gradient, "y": out}, {})
        net.late.add(out)
        so_far, blocks = out, None if block is None or blocks is None else blocks | {block}
    net.when = base
    return so_far


def check(net: "Derivation") -> Buffer:
    """Flags, side by side, of each gradient of a net: is it not finite?"""
    look = operator("finiteness").passes["check"]
    together, net.flags = side_by_side(net, look, "finite", np.uint8, net.gradients)
    for name, gradient in net.gradients.items():
        net.when = net.updated[name]
        net.emit(name, look, {"dw": gradient, "bad": net.flags[name]}, {})
    net.when = ALWAYS
    return together


def side_by_side(
    net: "Derivation", passed: Pass, name: str, dtype, gradients: Mapping[str, Buffer]
) -> tuple[Buffer, dict[str, Buffer]]:  # fmt: skip
    """An array for what a pass writes of each of some gradients, one entry a slice of it, and the part of each.

    gradients: parameter → its gradient, or what is as large.
    """
    counts = {of: passed.sizes({"dw": gradient}, {})["L"] for of, gradient in gradients.items()}
    together, parts, start = net.buffer(name, (sum(counts.values()),), dtype), {}, 0
    for of, count in counts.items():
        parts[of] = together.part(start, (count,))
        start += count
    return together, parts
