"""Derive the logical calls of a step from a graph and a plan.

Everything is derived by demand: ask for an array of a node, and the pass that writes it is called, after those that
write what it reads. A gradient is asked for only where a trained parameter lies at or before the node, so backward
stops at the first trained layer, and what no gradient reads is not kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..graph import INPUT, Graph, Node, Operator, Parameter, Tensor, check_dtype, node_attrs, operator
from ..kernels.passes import (
    Bound,
    Pass,
    ShapeError,
    dims,
    dtype_of,
    full_shape,
    merged,
    read_sizes,
    span,
    starred_axes,
)  # fmt: skip
from ..kernels.quantized import each
from ..kernels.random import ORDER
from ..methods.convolution import Rule, bind
from ..methods.instance_filter import select
from ..plan.plan import Plan
from .ir import ALWAYS, PHASES, Buffer, Call, Condition, Constant, Scalar, Scaled, Step

NEVER: frozenset[str] = frozenset()  # one of no blocks must be there


class Partial(NamedTuple):
    """A gradient from one of the nodes that use a tensor or parameter.

    block: the residual block in which that node lies, where it may be left out and what it uses stays.
    """

    gradient: Buffer
    block: str | None = None


@dataclass
class _Node:
    """A node with the passes that its rule and the plan give it."""

    node: Node
    op: Operator
    attrs: dict
    passes: list[Bound]
    sizes: dict[str, int]  # letters that its inputs, parameters and output tell
    arrays: dict[str, Buffer] = field(default_factory=dict)

    def __post_init__(self):
        self.writer = {a: p for p in reversed(self.passes) for a in p.writes}  # array → the first pass that writes it


class Derivation:
    """Derives the logical calls of one net's step from its graph and a plan."""

    def __init__(
        self, graph: Graph, plan: Plan, batch: int, size, dtype, training: bool, prefix: str = "", section: str = "",
        parameters: Mapping[str, Buffer] | None = None, stream: Buffer | None = None, chosen: bool = False,
    ):  # fmt: skip
        """prefix: put before the names of arrays and calls. section: name of the one section of an inference.

        parameters: those of another derivation of the same graph, to share. stream: a mini-batch that serves as input,
        or of which the host chooses the instances that do.
        """
        self.graph, self.plan, self.batch, self.dtype, self.training = graph, plan, batch, np.dtype(dtype), training
        self.prefix = prefix
        blocks = plan.strategy.blocks(graph)  # that a step may leave out
        self.inside = {node: b.name for b in blocks for node in b.nodes}
        self.shortcuts = {b.name: b.shortcut for b in blocks}
        self.when = ALWAYS  # of what is emitted now
        self.names = {phase: section or prefix + phase for phase in PHASES}
        self.shapes = graph.shapes(batch, size)
        self.trained = plan.trained(graph) if training else {}
        self.users = graph.users()
        self.calls: dict[str, list[Call]] = {s: [] for s in PHASES}
        self.moves = Moves(self.calls["forward"], self.calls["backward"])
        self.late: set[Buffer] = set()  # what depends on the gradient of the loss
        self.host_writes: dict[str, Buffer] = {}
        self.shared = parameters is not None
        self.parameters = parameters or self.own_parameters()
        self.state: dict[str, Buffer] = {}
        self.gradients: dict[str, Buffer] = {}
        self.updated: dict[str, Condition] = {}  # parameter → when it has a gradient
        self.flags: dict[str, Buffer] = {}
        self.constants: dict[str, Constant] = {}
        self.scalars: dict = {}
        self.section = "forward"
        self.tensors = {}
        if stream is None:
            for name in graph.inputs:
                self.tensors[name] = self.buffer(name, self.shapes[name], graph.tensors[name].dtype, batched=1)
                self.tensors[name].quantized = self.scaled(graph.tensors[name])
            self.host_writes |= self.tensors
        else:
            own = graph.tensors[INPUT]
            if stream.dtype != (own.dtype or self.dtype):
                raise ValueError(
                    f"{graph.name} takes {own.dtype or self.dtype}, but the mini-batch is of {stream.dtype}"
                )
            stream.quantized = stream.quantized or self.scaled(own)
            self.tensors[INPUT] = self.select(stream) if chosen else stream

    def select(self, stream: Buffer) -> Buffer:
        """The instances of a mini-batch that the host chooses, side by side."""
        self.host_writes["chosen"] = index = self.buffer("chosen", (self.batch,), np.int32, batched=1)
        selected = replace(self.buffer("selected", stream.shape, stream.dtype, batched=1), quantized=stream.quantized)
        whole = replace(stream, batched=0, base=stream)
        self.emit("input", select, {"stream": whole, "chosen": index, "selected": selected}, {})
        return selected

    def buffer(self, name: str, shape, dtype=None, region="arena", batched=0) -> Buffer:
        return Buffer(self.prefix + name, tuple(shape), np.dtype(dtype or self.dtype), region, batched)

    def parameter(self, name: str) -> Buffer:
        changes = any(
            local in self.trained.get(node.name, ()) or local in node.operator.state and self.statistics_change(node)
            for node, local in self.users[name]
        )
        own = self.graph.parameters[name]
        return self.buffer(name, own.shape, own.dtype, "state" if changes else "constant")

    def own_parameters(self) -> dict[str, Buffer]:
        """A buffer for each of the graph's parameters, those that are quantized with their scales."""
        found = {name: self.parameter(name) for name in self.graph.parameters}
        for name, b in found.items():
            b.quantized = self.scaled(self.graph.parameters[name], found)
        return found

    def scaled(self, array: Parameter | Tensor, parameters: Mapping[str, Buffer] | None = None) -> Scaled | None:
        """Where scale and zero point of one of the graph's arrays are. parameters: default the net's."""
        q, found = array.quantized, self.parameters if parameters is None else parameters
        if q is None:
            return None
        scale, zero = (name and (found.get(name) or self.tensors[name]) for name in (q.scale, q.zero_point))
        return Scaled(scale, zero, each(array.shape, q.axis))

    def statistics_change(self, node: Node) -> bool:
        """Does training change the arrays in STATE of a node? Statistics of the batch only where the plan says so."""
        return node.name in self.trained and (self.plan.batch_norm == "train" or not node.operator.statistics)

    def build(self, losses: bool = False, loss: bool = False) -> Step:
        """The step. losses: the host wants the loss of each instance, loss: their mean; of an inference too."""
        resolved = []
        needed = self.graph.needed()
        read = {*self.graph.outputs, *(tensor for node in needed for tensor in node.inputs)}
        stands = (self.graph.tensors[tensor].quantized for tensor in read)
        read |= {name for q in stands if q for name in (q.scale, q.zero_point) if name in self.graph.tensors}
        for node in needed:
            self.when = self.own(node.name if node.name in self.shortcuts else self.inside.get(node.name))
            r = self.resolve(node)
            resolved.append(r)
            for local, tensor in zip(r.op.outputs, r.node.outputs, strict=True):
                if tensor in read:
                    self.tensors[tensor] = self.demand(r, local).reshape(self.shapes[tensor])
            for tensor in read.intersection(node.outputs):
                shown: Buffer | None = self.tensors[tensor]
                scaled = self.scaled(self.graph.tensors[tensor])
                while scaled and shown:
                    shown.quantized, shown = scaled, shown.base
            if node.name in self.shortcuts:
                self.stand_in(r)
        self.when = ALWAYS
        output, *others = (self.tensors[tensor] for tensor in self.graph.outputs)
        reads = {"output": output}
        if not self.training:
            reads |= {f"output.{name}": b for name, b in zip(self.graph.outputs[1:], others, strict=True)}
        last = self.loss(output) if self.training or losses or loss else None
        if losses:
            reads["losses"] = self.demand(last, "losses")
        if self.training or loss:
            reads["loss"] = self.demand(last, "loss")
        if self.training:
            self.backward(resolved, last)
            if self.gradients:
                reads["finite"] = self.check()
            self.update(resolved)
        calls = {self.names[phase]: self.calls[phase] for phase in (PHASES if self.training else PHASES[:1])}
        own = {} if self.shared else self.parameters
        named = (self.host_writes, reads, own, self.state, self.gradients, self.flags, self.constants, self.scalars)
        order = [self.names[phase] for phase in PHASES] if self.training else []
        follows = dict(zip(order[1:], order, strict=False))
        found = ({self.prefix + name: value for name, value in arrays.items()} for arrays in named)
        return Step(calls, *found, follows)

    def own(self, block: str | None) -> Condition:
        """When the nodes of a residual block are there, or those outside of all."""
        return ALWAYS.also(there=[block]) if block else ALWAYS

    def stand_in(self, r: _Node) -> None:
        """Let the sum of a residual block be its shortcut where a step leaves that block out."""
        y, block = r.arrays["y"], r.node.name
        shortcut = self.tensors[self.shortcuts[block]].reshape(y.shape)
        self.copy(ALWAYS.also(gone=[block]), block, shortcut, y)

    def copy(self, when: Condition, node: str, x: Buffer, y: Buffer) -> None:
        """Emit y = x, for the steps in which it is so."""
        if not when.never:
            self.when = when
            self.emit(node, operator("copy").passes["forward"], {"x": x, "y": y}, {})

    def begin(self, section: str) -> None:
        """Let `emit` add to a section of this name from now on."""
        self.section = section
        self.calls.setdefault(section, [])
        self.names.setdefault(section, self.prefix + section)

    def emitted(self, section: str) -> Step:
        """What was emitted into a section that `begin` named, to be joined with others."""
        return Step(calls={self.names[section]: self.calls[section]})

    def held(self) -> Step:
        """The parameters, and what the host writes for what was emitted: a step without sections, to be joined."""
        writes = {self.prefix + name: self.host_writes[name] for name in self.scalars}
        state = {self.prefix + name: b for name, b in self.state.items()}
        scalars = {self.prefix + name: scalar for name, scalar in self.scalars.items()}
        parameters = {self.prefix + name: b for name, b in self.parameters.items()}
        return Step(host_writes=writes, parameters=parameters, state=state, scalars=scalars)

    def resolve(self, node: Node) -> _Node:
        """Operator, attributes and passes of a node under the plan, with its inputs and parameters bound."""
        op = node.operator
        if op.variant:
            op = operator(op.variant(self.training, self.statistics_change(node)))
        arrays = {local: self.tensors[t] for local, t in zip(op.locals(len(node.inputs)), node.inputs, strict=True)}
        arrays |= {local: self.parameters[p] for local, p in node.params.items()}
        known = {a: b for a, b in arrays.items() if op.shapes.get(a)}
        for local, tensor in zip(op.outputs, node.outputs, strict=True):
            known[local] = self.buffer(local, self.shapes[tensor])
        sizes = read_sizes(op.shapes, known)
        attrs = node_attrs(node, sizes)
        if op.stream is not None:
            attrs |= {"stream": op.stream + self.graph.place(node.name)}
        for local, holds in op.host.items():
            arrays[local] = self.count_write() if holds == "update" else self.seed_write()
        passes = op.bound
        if op.bind:
            passes = list(op.bind([arrays[local] for local in op.locals(len(node.inputs))]).passes)
        rules = self.plan.rules_of(node) if "w" in self.trained.get(node.name, ()) else []
        if rules:
            bound = bind(rules, attrs, op.derive(sizes, attrs) | sizes)
            passes, attrs, sizes = bound.passes + passes, bound.attrs, bound.sizes
            for rule in rules:
                arrays |= self.given(rule, node, passes, sizes)
        return _Node(node, op, attrs, passes, sizes, arrays)

    def given(self, rule: Rule, node: Node, passes: list[Bound], sizes: dict[str, int]) -> dict[str, Buffer]:
        """What the passes of a rule read that the rule or the host gives: its constants and its scalars."""
        entries = {a: entry for p in passes for a, entry in p.passed.shapes.items()}
        weights, groups, stream, found = node.params["w"], sizes["G"], ORDER + self.graph.place(node.name), {}
        for local, make in rule.constants().items():
            name, entry = f"{node.name}.{local}", entries[local]
            found[local] = b = self.buffer(name, full_shape(entry, sizes, {}), dtype_of(entry, self.dtype), "constant")
            self.constants[name] = Constant(b, lambda p, seed, make=make: make(p[weights], groups, seed, stream))
        for local, value in rule.scalars().items():
            found[local] = self.scalar(local, dtype_of(entries[local], self.dtype), value)
        return found

    def demand(self, r: _Node, array: str) -> Buffer | None:
        """The buffer of a node's array; the pass that writes it is called first where nobody has yet."""
        if array in r.arrays:
            return r.arrays[array]
        if array in r.op.aliases:
            source = self.demand(r, r.op.aliases[array])
            shape = self.alias_shape(r, array, source)
            r.arrays[array] = source.reshape(shape)
            return r.arrays[array]
        bound = r.writer.get(array)
        if bound is None:
            if any(array in map(p.name, p.passed.optional) for p in r.passes):
                return None
            raise KeyError(f"node {r.node.name}: no pass of {r.op.name} writes {array}")
        in_parts = array in map(bound.name, bound.passed.parts)
        for one in [p for p in r.passes if array in p.writes] if in_parts else [bound]:
            self.call(r, one)
        return r.arrays[array]

    def alias_shape(self, r: _Node, array: str, source: Buffer) -> tuple[int, ...]:
        if array == "y":
            return self.shapes[r.node.name]
        local = array.removeprefix("d")
        return r.arrays[local].shape if local in r.arrays else source.shape

    def call(self, r: _Node, bound: Bound, late: bool = False) -> None:
        """Add a call of a pass, after those that compute what it reads; late: it starts the way back."""
        passed = bound.passed
        for a in passed.reads:
            if a not in passed.parts:
                self.demand(r, bound.name(a))
        arrays = {a: r.arrays[bound.name(a)] for a in passed.reads if r.arrays.get(bound.name(a)) is not None}
        arrays = {a: rows(passed.shapes[a], b) for a, b in arrays.items()}
        try:
            attrs = passed.attrs({**r.attrs, **bound.attrs})
            sizes = passed.sizes(arrays, attrs, bound.sizes(r.sizes))
        except ShapeError as e:
            raise ShapeError(f"node {r.node.name} ({passed}): {e}") from None
        batched = any(b.batched for b in arrays.values())
        for a in passed.writes:
            own = bound.name(a)
            if a not in passed.inplace or a in passed.parts and own not in r.arrays:
                per_sample = batched and dims(passed.shapes[a])[:1] == ["N"]
                name = r.node.name if own == "y" else f"{r.node.name}.{own}"
                dtype = dtype_of(passed.shapes[a], self.dtype)
                samples = sizes["N"] // self.batch if per_sample else 0
                r.arrays[own] = self.buffer(name, passed.shape(a, sizes), dtype, batched=samples)
            arrays[a] = r.arrays[own]
        late = late or any(b.root in self.late for b in arrays.values())
        if late:
            self.late |= {arrays[a].root for a in passed.writes}
        # What the forward pass has at hand is used there: keeping a pooled input is cheaper than keeping the input.
        section = "forward" if self.section == "backward" and batched and not late else self.section
        node = self.prefix + r.node.name
        call = Call(self.names[section], node, passed, arrays, attrs, sizes, bool(bound.names), self.when)
        if section == self.section:
            self.calls[section].append(call)
        else:
            self.moves.bring(call)

    def loss(self, output: Buffer) -> _Node:
        """The loss as a last node; labels or targets come from the host."""
        plan = self.plan
        op = operator(plan.loss)
        node = Node("loss", plan.loss, (self.graph.output,))
        check_dtype(node, "x", self.graph.tensors[self.graph.output].dtype)
        sizes, axes = read_sizes(op.shapes, {"x": output}), starred_axes(op.shapes, {"x": output})
        attrs = {"label_smoothing": plan.label_smoothing}
        if plan.ignored_label is not None:
            attrs["ignored"] = plan.ignored_label
        r = _Node(node, op, attrs, op.bound, sizes, {"x": output})
        name = "labels" if "labels" in op.shapes else "target"
        entry = op.shapes[name]
        shape = full_shape(entry, sizes, axes)
        self.host_writes[name] = r.arrays[name] = self.buffer(name, shape, dtype_of(entry, self.dtype), batched=1)
        r.arrays["class_weights"] = None
        if plan.class_weights is not None:
            if len(plan.class_weights) != output.shape[-1]:
                raise ValueError(
                    f"class_weights has {len(plan.class_weights)} weights, but {self.graph.name} has "
                    f"{output.shape[-1]} outputs: give one a class"
                )
            r.arrays["class_weights"] = b = self.buffer("loss.class_weights", (output.shape[-1],), region="constant")
            make = lambda parameters, seed: np.array(plan.class_weights, self.dtype)  # noqa: E731
            self.constants["loss.class_weights"] = Constant(b, make)
        return r

    def backward(self, resolved: list[_Node], loss: _Node) -> None:
        """Walk the graph backwards; a gradient is computed only where a trained node lies upstream."""
        self.section = "backward"
        needed = self.needed(resolved)
        if needed[self.graph.output] == NEVER:
            return
        self.when = ALWAYS.also(any=needed[self.graph.output])
        self.call(loss, loss.writer["dx"], late=True)
        arriving: dict[str, list[Partial]] = {self.graph.output: [Partial(loss.arrays["dx"])]}
        uses: dict[str, list[Partial]] = {}  # parameter → its gradients of the nodes that use it
        for r in reversed(resolved):
            arrived = {o: arriving[t] for o, t in zip(r.op.outputs, r.node.outputs, strict=True) if t in arriving}
            if needed[r.node.name] == NEVER or not arrived:
                continue
            block = self.inside.get(r.node.name)
            self.when = here = self.own(block).also(any=needed[r.node.name])
            for local, gradients in arrived.items():
                shape = self.shapes[dict(zip(r.op.outputs, r.node.outputs, strict=True))[local]]
                r.arrays[f"d{local}"] = self.total(r.node.name, f"{r.node.name}.d{local}", gradients).reshape(shape)
            for local in self.trained.get(r.node.name, ()):
                uses.setdefault(r.node.params[local], []).append(Partial(self.demand(r, f"d{local}"), block))
            for local, tensor in zip(r.op.locals(len(r.node.inputs)), r.node.inputs, strict=True):
                if needed[tensor] != NEVER:
                    if f"d{local}" not in r.writer and f"d{local}" not in r.op.aliases:
                        raise ValueError(
                            f"the layers before {r.node.name} cannot train: {r.op.name} passes no gradient to its "
                            f"{local}; train fewer layers"
                        )
                    self.when = here if len(r.node.inputs) > 1 else self.own(block).also(any=needed[tensor])
                    elsewhere = block != self.inside.get(self.graph.tensors[tensor].producer)
                    partial = Partial(self.demand(r, f"d{local}"), block if elsewhere else None)
                    arriving.setdefault(tensor, []).append(partial)
        for name, gradients in uses.items():
            self.when = ALWAYS
            self.gradients[name] = self.total(name, f"{name}.gradient", gradients)
            blocks = {partial.block for partial in gradients}
            self.updated[name] = ALWAYS if None in blocks else ALWAYS.also(any=blocks)
        self.moves.finish()

    def needed(self, resolved: list[_Node]) -> dict[str, frozenset[str] | None]:
        """Of each tensor the blocks of which one must be there for its gradient to be needed, None where it always is.

        It is needed where a trained node that is there lies at or before it.
        """
        found: dict[str, frozenset[str] | None] = dict.fromkeys(self.graph.inputs, NEVER)
        for r in resolved:
            of = [found[t] for t in r.node.inputs]
            if r.node.name in self.trained:
                block = self.inside.get(r.node.name)
                of.append(None if block is None else frozenset([block]))
            one = None if None in of else frozenset().union(*of)
            found |= dict.fromkeys(r.node.outputs, one)
        return found

    def check(self) -> Buffer:
        """Flags, side by side, of each gradient: is it not finite?"""
        look = operator("finiteness").passes["check"]
        counts = {name: look.sizes({"dw": g}, {})["L"] for name, g in self.gradients.items()}
        together = self.buffer("finite", (sum(counts.values()),), np.uint8)
        start = 0
        for name, count in counts.items():
            self.flags[name] = together.part(start, (count,))
            self.when = self.updated[name]
            self.emit(name, look, {"dw": self.gradients[name], "bad": self.flags[name]}, {})
            start += count
        self.when = ALWAYS
        return together

    def total(self, node: str, name: str, gradients: list[Partial]) -> Buffer:
        """Sum of the gradients that reach a tensor from its consumers, or a parameter from the nodes that use it."""
        add, base = operator("add").passes["forward"], self.when
        (total, block), *others = sorted(gradients, key=lambda partial: partial.block is not None)
        so_far = None if block is None else frozenset([block])  # there is a total where one of these is there
        for i, (other, block) in enumerate(others):
            out = self.buffer(f"{name}{i or ''}", other.shape, batched=other.batched)
            total = total.reshape(other.shape)
            if block is not None:
                self.copy(base.also(gone=[block], any=so_far), node, total, out)
                if so_far is not None:
                    self.copy(base.also(there=[block], gone=so_far), node, other, out)
            self.when = base.also(there=[block] if block else (), any=so_far)
            self.emit(node, add, {"a": total, "b": other, "y": out}, {})
            self.late.add(out)
            total, so_far = out, so_far and so_far | {block}
        self.when = base
        return total

    def update(self, resolved: list[_Node]) -> None:
        """Running statistics, then the optimizer on each trained parameter."""
        self.section = "update"
        for r in resolved:
            for bound in r.passes if r.node.name in self.trained else ():
                if set(bound.passed.inplace) & set(r.op.state):
                    self.when = self.own(self.inside.get(r.node.name))
                    self.call(r, bound)
        self.when = ALWAYS
        optimizer = self.plan.step.optimizer
        op = operator(optimizer.operator)
        update = next(p for p in op.passes.values() if set(p.writes) == {"w", *optimizer.state})
        shared = {"lr": self.scalar("lr", self.dtype, optimizer.rate)}
        if self.plan.step.clip_norm is not None:
            shared["clip"] = self.clip(self.plan.step.clip_norm)
        if "factors" in update.reads:
            factors = {b: self.factors(b, op, shared["lr"]) for b in dict.fromkeys(map(self.block_of, self.gradients))}
        own = {r.node.params["w"]: (r, p.passed) for r in resolved for p in r.passes if p.passed.inplace == ["w"]}
        for name in own:
            if len(self.users[name]) > 1:
                names = ", ".join(node.name for node, _ in self.users[name])
                rules = " with ".join(rule.method for rule in self.plan.rules_of(own[name][0].node))
                raise ValueError(f"{rules} cannot train {name}: the layers {names} share it")
        for name, gradient in self.gradients.items():
            self.when = self.updated[name]
            arrays = {"w": self.parameters[name], "dw": gradient, **shared}
            if "factors" in update.reads:
                arrays["factors"] = factors[self.block_of(name)]
            if name in own:
                r, passed = own[name]
                groups = {letter: size for letter, size in r.sizes.items() if letter == "G"}
                self.emit(name, passed, {**r.arrays, **arrays}, optimizer.attrs, groups)
                continue
            if self.parameters[name].dtype != self.dtype:
                raise ValueError(
                    f"{optimizer.operator} trains {self.dtype} and cannot train {name}, which holds "
                    f"{self.parameters[name].dtype}: leave it as it is, or give its operator an update of w of its own"
                )
            for array in optimizer.state:
                key = f"{name}.{array}"
                self.state[key] = self.buffer(key, gradient.shape, region="state")
                arrays[array] = self.state[key]
            self.emit(name, update, arrays, optimizer.attrs)
        self.when = ALWAYS

    def block_of(self, parameter: str) -> str:
        """The residual block without which a parameter is not updated, "" where it always is."""
        return next(iter(self.updated[parameter].there), "")

    def factors(self, block: str, op: Operator, lr: Buffer) -> Buffer:
        """What the optimizer derives from the number of the update: a block that was left out counts its own."""
        dot = block and f"{block}."
        arrays = {"lr": lr, "step": self.count_write(block), "factors": self.buffer(f"{dot}factors", (2,))}
        self.when = self.own(block)
        self.emit("optimizer", op.writer("factors"), arrays, self.plan.step.optimizer.attrs)
        return arrays["factors"]

    def clip(self, max_norm: float) -> Buffer:
        """The factor by which the gradient is to be multiplied, from its norm over all parameters."""
        passes = operator("clip_norm").passes
        slices = {n: passes["partial_squares"].sizes({"dw": g}, {})["L"] for n, g in self.gradients.items()}
        together = self.buffer("clip.partials", (sum(slices.values()),), np.float64)
        start = 0
        for name, count in slices.items():
            arrays = {"dw": self.gradients[name], "partials": together.part(start, (count,))}
            self.when = self.updated[name]
            self.emit(name, passes["partial_squares"], arrays, {})
            if self.when != ALWAYS:
                self.when = ALWAYS.also(gone=self.when.any or self.when.there)
                self.emit(name, passes["nothing"], {"partials": arrays["partials"]}, {})
            start += count
        self.when = ALWAYS
        arrays = {a: self.buffer(f"clip.{a}", (1,)) for a in ("norm", "clip")} | {"all_partials": together}
        self.emit("clip", passes["factor"], arrays, {"max_norm": max_norm})
        return arrays["clip"]

    def emit(self, node: str, passed: Pass, arrays: dict[str, Buffer], attrs: dict, known: dict | None = None) -> None:
        """Append a call to the current section on buffers that exist already; known: letters that they do not tell."""
        arrays = {a: arrays[a] for a in passed.arrays if a in arrays}
        attrs = passed.attrs(attrs)
        sizes = passed.sizes(arrays, attrs, known)
        section = self.names[self.section]
        self.calls[self.section].append(Call(section, self.prefix + node, passed, arrays, attrs, sizes, when=self.when))

    def scalar(self, name: str, dtype, value, block: str = "") -> Buffer:
        """A one-element array that the host fills before each step with `value(updates, planned, seed)` (`Scalar`)."""
        if name not in self.host_writes:
            self.host_writes[name] = self.buffer(name, (1,), dtype)
            self.scalars[name] = Scalar(value, self.prefix, block)
        return self.host_writes[name]

    def seed_write(self) -> Buffer:
        """The seed of the run."""
        return self.scalar("seed", np.int64, lambda updates, planned, seed: seed)

    def count_write(self, block: str = "") -> Buffer:
        """The number of the update, from 1: of the net, or of a residual block."""
        name = f"{block}.step" if block else "step"
        return self.scalar(name, np.int64, lambda updates, planned, seed: updates + 1, block)


def rows(entry: str, buffer: Buffer) -> Buffer:
    """A buffer as its pass sees it, where the first letter of the entry stands for several axes."""
    axes = span(entry, len(buffer.shape))
    return buffer if axes is None or axes.start else buffer.reshape(merged(entry, buffer.shape))


class Moves:
    """Calls that the backward section asks for and the forward section does, where what they read is at hand."""

    def __init__(self, forward: list[Call], backward: list[Call]):
        """forward, backward: the calls of the two sections, which `finish` changes in place."""
        self.forward, self.backward = forward, backward
        self.writers: dict[Buffer, list[int]] = {}  # memory → numbers of the backward calls that write it …
        self.seen = 0  # … of so many of them
        self.moved: set[int] = set()
        # A place sorts after that which it begins with, and the later it was given the sooner after it.
        self.places: dict[Call, tuple[int, ...]] = {}
        self.last: dict[str | Buffer, tuple[int, ...]] = {}  # node or memory → the last place of what writes it

    def bring(self, call: Call) -> None:
        """Insert a call into the forward section behind its node and what it reads, after what only it asked for."""
        if not self.places:
            for i, earlier in enumerate(self.forward):
                self.put(earlier, (i,))
        for i in range(self.seen, len(self.backward)):
            for b in self.backward[i].writes:
                self.writers.setdefault(b.root, []).append(i)
        self.seen = len(self.backward)
        read = {b.root for b in call.reads}
        for i in sorted({i for b in read for i in self.writers.get(b, ())} - self.moved):
            self.moved.add(i)
            self.bring(replace(self.backward[i], section=call.section))
        behind = max((self.last[key] for key in (call.node, *read) if key in self.last), default=())
        self.put(call, (*behind, -len(self.places)))

    def put(self, call: Call, place: tuple[int, ...]) -> None:
        """Note where a call of the forward section stands."""
        self.places[call] = place
        for key in (call.node, *(b.root for b in call.writes)):
            self.last[key] = max(self.last.get(key, ()), place)

    def finish(self) -> None:
        """Move them."""
        if self.places:
            self.forward[:] = sorted(self.places, key=self.places.get)
            self.backward[:] = [call for i, call in enumerate(self.backward) if i not in self.moved]
