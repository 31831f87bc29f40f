"""The update of a net: its running statistics, then the optimizer on each trained parameter."""

import math
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.passes import Pass, dtypes_of
from ..kernels.random import UPDATE
from ..ops import operator, quantized_sgd
from .backward import side_by_side
from .ir import ALWAYS, Buffer, Moment

if TYPE_CHECKING:
    from .derive import Derivation, Resolved


def update(net: "Derivation", nodes: "list[Resolved]") -> None:
    """Derive the update section of a net. nodes: those of its forward section, in order.

    Gradients are there, or made where they are read: then not all of them are kept at once.
    """
    net.section = "update"
    running_statistics(net, nodes)
    if net.updating:
        net.updating(net)
        return
    optimizer = net.plan.step.optimizer
    op = operator(optimizer.operator)
    passed = next(p for p in op.passes.values() if set(p.writes) == {"w", *optimizer.state})

    def rate(now: Moment) -> float:
        return now.factor * optimizer.rate(now.made, now.planned, now.seed)

    shared = {"lr": net.scalar("lr", net.dtype, rate)}
    if net.plan.step.clip_norm is not None:
        shared["clip"] = clip(net, net.plan.step.clip_norm)
    factors: dict[str, Buffer] = {}
    if writer := op.writer("factors"):
        blocks = dict.fromkeys(block_of(net, name) for name in net.updated)
        factors = {block: factors_of(net, block, writer, shared["lr"]) for block in blocks}
    by_rule, settled = rule_updates(net, nodes), dict(optimizer.attrs)
    for rule in net.plan.rules:
        settled |= rule.updating()
    for name, when in net.updated.items():
        net.when = when
        gradient = net.gradient(name)
        arrays = {"w": net.parameters[name], "dw": gradient, **shared}
        if factors:
            arrays["factors"] = factors[block_of(net, name)]
        if name in by_rule:
            resolved, own = by_rule[name]
            groups = {letter: size for letter, size in resolved.sizes.items() if letter == "G"}
            attrs = settled
            if "scale" in own.reads:
                more, settings = of_whole(net, name, own)
                arrays, attrs = arrays | more, attrs | settings
            net.emit(name, own, {**resolved.arrays, **arrays}, attrs, groups)
            continue
        if net.graph.parameters[name].quantized and optimizer.whole:
            own = next(p for p in operator(optimizer.whole).passes.values() if p.inplace == ["w"])
            more, settings = of_whole(net, name, own)
            net.emit(name, own, arrays | more, settled | settings)
            continue
        if net.parameters[name].dtype != net.dtype:
            raise ValueError(
                f"{optimizer.operator} trains {net.dtype} and cannot train {name}, which holds "
                f"{net.parameters[name].dtype}: leave it as it is, or give its operator an update of w of its own"
            )
        for array in optimizer.state:
            key = f"{name}.{array}"
            net.state[key] = net.buffer(key, gradient.shape, region="state")
            arrays[array] = net.state[key]
        net.emit(name, passed, arrays, settled)
    net.when = ALWAYS


def of_whole(net: "Derivation", name: str, passed: Pass) -> "tuple[dict[str, Buffer], dict]":
    """What an update of whole numbers reads beside w and dw, and its settings. ValueError where it cannot train it."""
    buffer, optimizer = net.parameters[name], net.plan.step.optimizer
    dtypes, q = dtypes_of(passed.shapes["w"]), buffer.quantized
    if buffer.dtype not in dtypes:
        raise ValueError(f"{passed} trains {' and '.join(map(str, dtypes))}, but {name} holds {buffer.dtype}")
    if q is None or q.zero_point or q.each != 1:
        raise ValueError(f"{passed} trains whole numbers of one scale or one an output channel, but {name} has others")
    if optimizer.state:
        raise ValueError(
            f"{name} of {net.graph.name} holds {buffer.dtype}, which plain SGD trains alone: a momentum of floats "
            "would take four bytes for each"
        )
    node, _ = net.users[name][0]
    terms = math.prod(net.graph.parameters[node.params["w"]].shape[:-1])
    settings = {"most": quantized_sgd.end(buffer.dtype, terms), "stream": UPDATE + [*net.graph.parameters].index(name)}
    return {"scale": q.scale, "step": net.count_write(), "seed": net.seed_write()}, settings


def running_statistics(net: "Derivation", nodes: "list[Resolved]") -> None:
    """Update the arrays in STATE of each node that trains."""
    for resolved in nodes:
        for bound in resolved.passes if resolved.name in net.trained else ():
            if set(bound.passed.inplace) & set(resolved.op.state):
                net.when = net.there(net.inside.get(resolved.name))
                net.call(resolved, bound)
    net.when = ALWAYS


def rule_updates(net: "Derivation", nodes: "list[Resolved]") -> "dict[str, tuple[Resolved, Pass]]":
    """Parameter → the node and the pass that update it where a rule has an update of w of its own."""
    passes = {
        resolved.node.params["w"]: (resolved, bound.passed)
        for resolved in nodes
        for bound in resolved.passes
        if bound.passed.inplace == ["w"]
    }
    for name, (resolved, _) in passes.items():
        if len(net.users[name]) > 1:
            layers = ", ".join(node.name for node, _ in net.users[name])
            rules = " with ".join(rule.method for rule in net.plan.rules_of(resolved.node))
            raise ValueError(f"{rules} cannot train {name}: the layers {layers} share it")
    return passes


def block_of(net: "Derivation", parameter: str) -> str:
    """The residual block without which a parameter is not updated, "" where it always is."""
    return next(iter(net.updated[parameter].there), "")


def factors_of(net: "Derivation", block: str, writer: Pass, lr: Buffer) -> Buffer:
    """What the optimizer derives from the number of the update: a block that was left out counts its own."""
    dot = block and f"{block}."
    arrays = {"lr": lr, "step": net.count_write(block), "factors": net.buffer(f"{dot}factors", (2,))}
    net.when = net.there(block)
    net.emit("optimizer", writer, arrays, net.plan.step.optimizer.attrs)
    return arrays["factors"]


def clip(net: "Derivation", max_norm: float) -> Buffer:
    """The factor by which the gradient is to be multiplied, from its norm over all parameters."""
    passes = operator("clip_norm").passes
    sizes = {name: net.parameters[name] if name in net.estimated else net.gradients[name] for name in net.updated}
    together, parts = side_by_side(net, passes["partial_squares"], "clip.partials", np.float64, sizes)
    for name, when in net.updated.items():
        net.when = when
        arrays = {"dw": net.gradient(name), "partials": parts[name]}
        net.emit(name, passes["partial_squares"], arrays, {})
        if net.when != ALWAYS:
            net.when = ALWAYS.also(gone=net.when.any or net.when.there)
            net.emit(name, passes["nothing"], {"partials": parts[name]}, {})
    net.when = ALWAYS
    arrays = {a: net.buffer(f"clip.{a}", (1,)) for a in ("norm", "clip")} | {"all_partials": together}
    net.emit("clip", passes["factor"], arrays, {"max_norm": max_norm})
    return arrays["clip"]
