"""Derive the logical calls of a step from a graph and a plan.

Everything is derived by demand: ask for an array of a node, and the pass that writes it is called, after those that
write what it reads. A gradient is asked for only where a trained parameter lies at or before the node, so backward
stops at the first trained layer, and what no gradient reads is not kept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..graph import INPUT, Graph, Node, Parameter, Tensor, check_dtype, node_attrs
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
    starred,
    starred_axes,
)  # fmt: skip
from ..kernels.quantized import each, real
from ..kernels.random import ORDER
from ..methods.instance_filter import select
from ..methods.layer import Rule, bind, rules_for
from ..ops import Operator, operator, tangent_terms
from ..plan.plan import Plan
from .backward import backward, check
from .forward_mode import ForwardMode, Tangent
from .ir import ALWAYS, PHASES, Buffer, Call, Condition, Constant, Scalar, Scaled, Step
from .moves import Moves
from .update import update


@dataclass
class Resolved:
    """A node with the operator that stands for it in a step, and the passes that its rules and the plan give it."""

    node: Node
    op: Operator
    attrs: dict
    passes: list[Bound]
    sizes: dict[str, int]  # letters that its inputs, parameters and output tell
    arrays: dict[str, Buffer] = field(default_factory=dict)
    tangent: tuple[str | Bound, ...] = ()  # the terms of what the operator states as TANGENT

    def __post_init__(self):
        bound = [*self.passes, *(term for term in self.tangent if isinstance(term, Bound))]
        self.writer = {a: p for p in reversed(bound) for a in p.writes}  # array → the first pass that writes it

    @property
    def name(self) -> str:
        """That of the node."""
        return self.node.name

    def tells(self, array: str) -> bool:
        """Is there such an array, or a pass or another array that gives it?"""
        return array in self.arrays or array in self.op.aliases or array in self.op.host or array in self.writer


class Derivation:
    """Derives the logical calls of one net's step from its graph and a plan."""

    def __init__(
        self, graph: Graph, plan: Plan, batch: int, size, dtype, training: bool, prefix: str = "", section: str = "",
        parameters: Mapping[str, Buffer] | None = None, stream: Buffer | None = None, chosen: bool = False,
        operand: "Operand | None" = None,
    ):  # fmt: skip
        """prefix: put before the names of arrays and calls. section: name of the one section of an inference.

        parameters: those of another derivation of the same graph, to share. stream: a mini-batch that serves as input,
        or of which the host chooses the instances that do. operand: what nodes read in place of the parameters: asked
        for the net, a parameter's name and its buffer where a node first reads it.
        """
        self.graph, self.plan, self.batch, self.dtype, self.training = graph, plan, batch, np.dtype(dtype), training
        self.prefix = prefix
        blocks = plan.strategy.blocks(graph)  # that a step may leave out
        self.inside = {node: block.name for block in blocks for node in block.nodes}
        self.shortcuts = {block.name: block.shortcut for block in blocks}
        self.when = ALWAYS  # of what is emitted now
        self.names = {phase: section or prefix + phase for phase in PHASES}
        self.shapes = graph.shapes(batch, size)
        self.trained = plan.trained(graph) if training else {}
        self.users = graph.users()
        self.calls: dict[str, list[Call]] = {phase: [] for phase in PHASES}
        self.moves = Moves(self.calls["forward"], self.calls["backward"])
        self.late: set[Buffer] = set()  # what depends on the gradient of the loss
        self.host_writes: dict[str, Buffer] = {}
        self.shared = parameters is not None
        self.parameters = parameters or self.own_parameters()
        self.state: dict[str, Buffer] = {}
        self.gradients: dict[str, Buffer] = {}
        # parameter → what emits calls that make its gradient anew, where a step keeps none until it is read
        self.estimated: Mapping[str, Callable[[], Buffer]] = {}
        self.updating: Callable[[Derivation], None] | None = None  # emits the update; None: the optimizer's
        self.operand, self.operands = operand, dict[str, Buffer]()
        self.told: set[str] = set()  # of what the host writes the arrays that the step's strategy fills
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
        """A new buffer of the net, as `Buffer` takes it; dtype: default the float dtype of the program."""
        return Buffer(self.prefix + name, tuple(shape), np.dtype(dtype or self.dtype), region, batched)

    def parameter(self, name: str) -> Buffer:
        """A new buffer for one of the graph's parameters: in the state where training changes it."""
        changes = any(
            local in self.trained.get(node.name, ()) or local in node.operator.state and self.statistics_change(node)
            for node, local in self.users[name]
        )
        own = self.graph.parameters[name]
        return self.buffer(name, own.shape, own.dtype, "state" if changes else "constant")

    def own_parameters(self) -> dict[str, Buffer]:
        """A buffer for each of the graph's parameters, those that are quantized with their scales."""
        buffers = {name: self.parameter(name) for name in self.graph.parameters}
        for name, b in buffers.items():
            b.quantized = self.scaled(self.graph.parameters[name], buffers)
        return buffers

    def scaled(self, array: Parameter | Tensor, parameters: Mapping[str, Buffer] | None = None) -> Scaled | None:
        """Where scale and zero point of one of the graph's arrays are. parameters: default the net's."""
        q, known = array.quantized, self.parameters if parameters is None else parameters
        if q is None:
            return None
        scale, zero = (name and (known.get(name) or self.tensors[name]) for name in (q.scale, q.zero_point))
        return Scaled(scale, zero, each(array.shape, q.axis))

    def statistics_change(self, node: Node) -> bool:
        """Does training change the arrays in STATE of a node? Statistics of the batch only where the plan says so."""
        return node.name in self.trained and (self.plan.batch_norm == "train" or not node.operator.statistics)

    def build(self, losses: bool = False, loss: bool = False, tangent: Tangent | None = None) -> Step:
        """The step. losses: the host wants the loss of each instance, loss: their mean; of an inference too.

        tangent: of parameters (`forward_mode`); then the host gets the derivative of the loss along them, `tloss`, in
        place of the ways back and to an update.
        """
        along = ForwardMode(self, tangent) if tangent else None
        nodes = self.forward(along)
        output, *others = (self.tensors[tensor] for tensor in self.graph.outputs)
        reads = {"output": output}
        if not self.training:
            reads |= {f"output.{name}": b for name, b in zip(self.graph.outputs[1:], others, strict=True)}
        last = self.loss(output) if self.training or losses or loss or along else None
        if losses:
            reads["losses"] = self.demand(last, "losses")
        if self.training or loss or along:
            reads["loss"] = self.demand(last, "loss")
        if along:
            reads["tloss"] = along.loss(last)
        elif self.training:
            backward(self, nodes, last)
            if any(b.dtype.kind == "f" for b in self.gradients.values()):
                reads["finite"] = check(self)
            update(self, nodes)
        phases = PHASES if self.training and not along else PHASES[:1]
        calls = {self.names[phase]: self.calls[phase] for phase in phases}
        order = [*calls]
        return Step(
            calls,
            self.prefixed(self.host_writes),
            self.prefixed(reads),
            {} if self.shared else self.prefixed(self.parameters),
            self.prefixed(self.state),
            self.prefixed(self.gradients),
            self.prefixed(self.flags),
            self.prefixed(self.constants),
            self.prefixed(self.scalars),
            follows=dict(zip(order[1:], order, strict=False)),
        )

    def forward(self, along: ForwardMode | None = None) -> list[Resolved]:
        """Derive the nodes that an output needs, in order, and with them the tensors that somebody reads.

        along: what derives the tangents of each node right after it.
        """
        nodes = []
        needed = self.graph.needed()
        read = {*self.graph.outputs, *(tensor for node in needed for tensor in node.inputs)}
        scales = [self.graph.tensors[tensor].quantized for tensor in read]
        read |= {name for q in scales if q for name in (q.scale, q.zero_point) if name in self.graph.tensors}
        for node in needed:
            self.when = self.there(node.name if node.name in self.shortcuts else self.inside.get(node.name))
            resolved = self.resolve(node)
            nodes.append(resolved)
            for local, tensor in zip(resolved.op.outputs, node.outputs, strict=True):
                if tensor in read:  # what reads it has all its axes, the node's own gradients too
                    whole = self.demand(resolved, local).reshape(self.shapes[tensor])
                    self.tensors[tensor] = resolved.arrays[local] = whole
            for tensor in read.intersection(node.outputs):
                view: Buffer | None = self.tensors[tensor]
                scaled = self.scaled(self.graph.tensors[tensor])
                while scaled and view:
                    view.quantized, view = scaled, view.base
            if along:
                along.after(resolved)
            if node.name in self.shortcuts:
                self.stand_in(resolved)
                if along:
                    along.stand_in(resolved, self.shortcuts[node.name])
        self.when = ALWAYS
        return nodes

    def prefixed(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The same under the names that they have in a step of several nets."""
        return {self.prefix + name: value for name, value in arrays.items()}

    def there(self, block: str | None) -> Condition:
        """When the nodes of a residual block are there, or those outside of all."""
        return ALWAYS.also(there=[block]) if block else ALWAYS

    def stand_in(self, total: Resolved) -> None:
        """Let the sum at the end of a residual block be its shortcut where a step leaves that block out."""
        y, block = total.arrays["y"], total.name
        shortcut = self.tensors[self.shortcuts[block]].reshape(y.shape)
        self.copy(ALWAYS.also(gone=[block]), block, shortcut, y)

    def copy(self, when: Condition, node: str, x: Buffer | None, y: Buffer) -> None:
        """Emit y = x, for the steps in which it is so; without an x y = 0."""
        if not when.never:
            self.when = when
            passes, arrays = operator("copy").passes, {"y": y} if x is None else {"x": x, "y": y}
            self.emit(node, passes["clear" if x is None else "forward"], arrays, {})

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
        emitted = self.scalars.keys() | self.told
        return Step(
            host_writes=self.prefixed({name: b for name, b in self.host_writes.items() if name in emitted}),
            parameters=self.prefixed(self.parameters),
            state=self.prefixed(self.state),
            gradients=self.prefixed(self.gradients),
            scalars=self.prefixed(self.scalars),
        )

    def read(self, name: str) -> Buffer:
        """What a node reads as one of the graph's parameters: its own buffer, or its operand, made by the first node.

        One that several nodes read is made whatever blocks a step leaves out.
        """
        if self.operand is None:
            return self.parameters[name]
        if name not in self.operands:
            here = self.when
            self.when = self.used(name)
            self.operands[name] = self.operand(self, name, self.parameters[name])
            self.when = here
        return self.operands[name]

    def used(self, name: str) -> Condition:
        """When a node that reads one of the graph's parameters is there."""
        blocks = [self.inside.get(node.name) for node, _ in self.users[name]]
        several = None if None in blocks else frozenset(block for block in blocks if block is not None)
        return ALWAYS.also(any=several)

    def gradient(self, name: str) -> Buffer:
        """The gradient of a parameter for a call that reads it now; where it is estimated, by calls before that."""
        if name in self.estimated:
            self.gradients[name] = self.estimated[name]()
        return self.gradients[name]

    def learn(self) -> None:
        """Derive the update of a step whose gradients are all estimated."""
        update(self, [])

    def resolve(self, node: Node) -> Resolved:
        """Operator, attributes and passes of a node under the plan, with its inputs and parameters bound."""
        op = node.operator
        if op.variant:
            op = operator(op.variant(self.training, self.statistics_change(node)))
        inputs = zip(op.locals(len(node.inputs)), node.inputs, strict=True)
        arrays = {local: self.tensors[tensor] for local, tensor in inputs}
        arrays |= {local: self.read(name) for local, name in node.params.items()}
        scales = {local: self.graph.parameters[name].quantized for local, name in node.params.items()}
        arrays |= {f"{local}_scale": self.parameters[q.scale] for local, q in scales.items() if q}
        known = {a: b for a, b in arrays.items() if op.shapes.get(a)}
        for local, tensor in zip(op.outputs, node.outputs, strict=True):
            known[local] = self.buffer(local, self.shapes[tensor])
        sizes = read_sizes(op.shapes, known)
        attrs = {**node_attrs(node, sizes), **self.plan.step.attrs}
        if op.stream is not None:
            attrs |= {"stream": op.stream + self.graph.place(node.name)}
        passes, tangent = op.bound, op.tangent
        if op.bind:
            binding = op.bind([arrays[local] for local in op.locals(len(node.inputs))])
            passes, tangent = list(binding.passes), tangent_terms(binding.tangent)
        if op.statistics and self.statistics_change(node):
            passes = [Bound(p) for rule in self.plan.rules for p in rule.statistics()] + passes
        rules = rules_for(self.plan.rules, self.graph, node) if "w" in self.trained.get(node.name, ()) else []
        if rules:
            letters = {letter: n for letter, n in sizes.items() if letter not in starred(op.shapes)}
            bound = bind(rules, node.op, attrs, (op.derive(sizes, attrs) if op.derive else {}) | letters)
            passes, attrs, sizes = bound.passes + passes, bound.attrs, bound.sizes
            for rule in rules:
                arrays |= self.given(rule, node, passes, sizes)
                if rule.stream is not None:
                    attrs |= {"stream": rule.stream + self.graph.place(node.name)}
        return Resolved(node, op, attrs, passes, sizes, arrays, tangent)

    def given(self, rule: Rule, node: Node, passes: list[Bound], sizes: dict[str, int]) -> dict[str, Buffer]:
        """What the passes of a rule read that the rule or the host gives: its constants and its scalars."""
        entries = {a: entry for p in passes for a, entry in p.passed.shapes.items()}
        weights, groups, stream = node.params["w"], sizes.get("G", 1), ORDER + self.graph.place(node.name)
        arrays = {}
        for local, make in rule.constants().items():
            name, entry = f"{node.name}.{local}", entries[local]
            arrays[local] = b = self.buffer(name, full_shape(entry, sizes, {}), dtype_of(entry, self.dtype), "constant")
            q = self.graph.parameters[weights].quantized

            def made(given, seed, make=make, scale=q and q.scale):
                w = given[weights]
                return make(real(w, given[scale]) if scale in given else w, groups, seed, stream)

            self.constants[name] = Constant(b, made)
        for local, value in rule.scalars().items():
            arrays[local] = self.scalar(local, dtype_of(entries[local], self.dtype), value)
        return arrays

    def demand(self, resolved: Resolved, array: str) -> Buffer:
        """The buffer of a node's array; the pass that writes it is called first where nobody has yet."""
        arrays, op = resolved.arrays, resolved.op
        if array in arrays:
            return arrays[array]
        if array in op.aliases:
            source = self.demand(resolved, op.aliases[array])
            arrays[array] = source.reshape(self.alias_shape(resolved, array, source))
            return arrays[array]
        if array in op.host:
            arrays[array] = self.count_write() if op.host[array] == "update" else self.seed_write()
            return arrays[array]
        if array not in resolved.writer:
            raise KeyError(f"node {resolved.name}: no pass of {op.name} writes {array}")
        writer = resolved.writer[array]
        in_parts = array in map(writer.name, writer.passed.parts)
        for bound in [p for p in resolved.passes if array in p.writes] if in_parts else [writer]:
            self.call(resolved, bound)
        return arrays[array]

    def alias_shape(self, resolved: Resolved, array: str, source: Buffer) -> tuple[int, ...]:
        """Shape of an array that is another one, `source`, under a new shape: a gradient has that of its array."""
        if array == "y":
            return self.shapes[resolved.name]
        local = array.removeprefix("d")
        return resolved.arrays[local].shape if local in resolved.arrays else source.shape

    def call(self, resolved: Resolved, bound: Bound, late: bool = False) -> None:
        """Add a call of a pass, after those that compute what it reads; late: it starts the way back."""
        passed = bound.passed
        for a in passed.reads:
            if a not in passed.parts and (a not in passed.optional or resolved.tells(bound.name(a))):
                self.demand(resolved, bound.name(a))
        known = {a: resolved.arrays[bound.name(a)] for a in passed.reads if bound.name(a) in resolved.arrays}
        arrays = {a: rows(passed.shapes[a], b) for a, b in known.items()}
        try:
            attrs = passed.attrs({**resolved.attrs, **bound.attrs})
            sizes = passed.sizes(arrays, attrs, bound.sizes(resolved.sizes))
        except ShapeError as e:
            raise ShapeError(f"node {resolved.name} ({passed}): {e}") from None
        batched = any(b.batched for b in arrays.values())
        told = any("N" in dims(passed.shapes[a]) for a in arrays)  # else its N are the samples of the node
        for a in passed.writes:
            own = bound.name(a)
            if a not in passed.inplace or a in passed.parts and own not in resolved.arrays:
                per_sample = (batched or not told) and dims(passed.shapes[a])[:1] == ["N"]
                name = resolved.name if own == "y" else f"{resolved.name}.{own}"
                dtype = passed.dtype(a, arrays, self.dtype)
                shape = passed.shape(a, sizes)
                if own not in resolved.op.shapes:  # one of a rule's, which keeps the axes of what it is made from
                    shape = full_shape(passed.shapes[a], sizes, starred_axes(passed.shapes, arrays))
                samples = sizes["N"] // self.batch if per_sample else 0
                resolved.arrays[own] = self.buffer(name, shape, dtype, batched=samples)
            arrays[a] = resolved.arrays[own]
        late = late or any(b.root in self.late for b in arrays.values())
        if late:
            self.late |= {arrays[a].root for a in passed.writes}
        # What the forward pass has at hand is used there: keeping a pooled input is cheaper than keeping the input.
        section = "forward" if self.section == "backward" and batched and not late else self.section
        node = self.prefix + resolved.name
        call = Call(self.names[section], node, passed, arrays, attrs, sizes, bool(bound.names), self.when)
        if section == self.section:
            self.calls[section].append(call)
        else:
            self.moves.bring(call)

    def loss(self, output: Buffer) -> Resolved:
        """The loss as a last node; labels or targets come from the host.

        Of whole numbers it may read the scale too, as `x_exponent`.
        """
        plan = self.plan
        attrs: dict = {"label_smoothing": plan.label_smoothing, **self.plan.step.attrs}
        if plan.ignored_label is not None:
            attrs["ignored"] = plan.ignored_label
        named = plan.step.loss or plan.loss
        op = operator(named)
        node = Node("loss", named, (self.graph.output,))
        check_dtype(node, "x", self.graph.tensors[self.graph.output].dtype)
        sizes, axes = read_sizes(op.shapes, {"x": output}), starred_axes(op.shapes, {"x": output})
        arrays = {"x": output}
        if "x_exponent" in op.shapes and output.quantized:
            arrays["x_exponent"] = output.quantized.scale
        if op.stream is not None:
            attrs["stream"] = op.stream + len(self.graph.nodes)
        loss = Resolved(node, op, attrs, op.bound, sizes, arrays, op.tangent)
        name = "labels" if "labels" in op.shapes else "target"
        entry = op.shapes[name]
        shape = full_shape(entry, sizes, axes)
        self.host_writes[name] = loss.arrays[name] = self.buffer(name, shape, dtype_of(entry, self.dtype), batched=1)
        if plan.class_weights is not None:
            if len(plan.class_weights) != output.shape[-1]:
                raise ValueError(
                    f"class_weights has {len(plan.class_weights)} weights, but {self.graph.name} has "
                    f"{output.shape[-1]} outputs: give one a class"
                )
            loss.arrays["class_weights"] = b = self.buffer("loss.class_weights", (output.shape[-1],), region="constant")
            make = lambda parameters, seed: np.array(plan.class_weights, self.dtype)  # noqa: E731
            self.constants["loss.class_weights"] = Constant(b, make)
        return loss

    def emit(self, node: str, passed: Pass, arrays: dict[str, Buffer], attrs: dict, known: dict | None = None) -> None:
        """Append a call to the current section on buffers that exist already; known: letters that they do not tell."""
        arrays = {a: arrays[a] for a in passed.arrays if a in arrays}
        attrs = passed.attrs(attrs)
        sizes = passed.sizes(arrays, attrs, known)
        section = self.names[self.section]
        self.calls[self.section].append(Call(section, self.prefix + node, passed, arrays, attrs, sizes, when=self.when))

    def scalar(self, name: str, dtype, value, block: str = "") -> Buffer:
        """A one-element array that the host fills before each step with `value(moment)` (`Scalar`)."""
        if name not in self.host_writes:
            self.host_writes[name] = self.buffer(name, (1,), dtype)
            self.scalars[name] = Scalar(value, self.prefix, block)
        return self.host_writes[name]

    def host_array(self, name: str, shape: tuple[int, ...], dtype) -> Buffer:
        """An array that the step's strategy fills before it runs a section that reads it."""
        self.told.add(name)
        self.host_writes[name] = self.buffer(name, shape, dtype)
        return self.host_writes[name]

    def seed_write(self) -> Buffer:
        """The seed of the run."""
        return self.scalar("seed", np.int64, lambda now: now.seed)

    def count_write(self, block: str = "") -> Buffer:
        """The number of the update, from 1: of the net, or of a residual block."""
        name = f"{block}.step" if block else "step"
        return self.scalar(name, np.int64, lambda now: now.updates + 1, block)


Operand = Callable[[Derivation, str, Buffer], Buffer]


def rows(entry: str, buffer: Buffer) -> Buffer:
    """A buffer as its pass sees it, where the first letter of the entry stands for several axes."""
    axes = span(entry, len(buffer.shape))
    return buffer if axes is None or axes.start else buffer.reshape(merged(entry, buffer.shape))
