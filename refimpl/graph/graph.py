"""A model as data: named tensors, and nodes in order, each an operator with inputs, outputs and parameters."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import DTypeLike

from .. import arguments
from ..data.pixels import Level
from ..kernels.passes import ShapeError, canonical, dtypes_of
from ..kernels.quantized import Quantized, check_quantized
from ..ops import operator
from .building import Building
from .nodes import INPUT, Node, Parameter, Tensor, check_dtype, output_shapes, renamed, settled


class Graph(Building):
    """Named tensors and the nodes that make them, in the order in which they run.

    Build one by calling its methods: each adds a node and returns the name of its output tensor. With a size and
    channels it begins with the map `input`, (N, H, W, C); `add_input` adds others of any rank. What it gives are
    `outputs`, by default the last tensor. A branch that no output needs is no part of a step.
    """

    def __init__(self, name: str, size: tuple[int, int] | None = None, channels: int | None = None) -> None:
        """size: rows and columns (H, W) of the input map; channels: its C. Without both there is no input yet."""
        self.name = name
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.parameters: dict[str, Parameter] = {}
        self.weights: dict[str, np.ndarray] = {}  # pre-trained values; parameters without one start from the seed
        self.options: dict = {}  # what `models.build` needs beside classes, size and channels to build it again
        self.pixels: tuple[Level, Level] = (0.0, 1.0)  # what stands for a pixel of 0 and of 255 (`data.pixels`)
        self.classes: tuple[str | None, ...] = ()  # names of the classes that its output tells apart, where known
        self.classifier: frozenset[str] | None = None  # nodes of it, where this is a part of a net
        self.origin = ""  # where its weights are from, in words, where the weights alone do not tell
        self.stored: dict[str, dict] = {}  # parameter → where the file of another program has it (`formats.onnx`)
        self._places: dict[str, int] = {}
        self._outputs: tuple[str, ...] = ()
        self.size: tuple[int, int] | None = None
        self.channels: int | None = None
        if size is None and channels is None:
            return
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise ValueError(f"size of the graph {name} must be rows and columns (H, W), got {size!r}")
        self.size = (int(size[0]), int(size[1]))
        arguments.whole(f"channels of the graph {name}", channels)
        self.channels = int(cast(int, channels))
        self.tensors[INPUT] = Tensor(INPUT, (1, *self.size, self.channels))

    def __str__(self) -> str:
        """Its layers, one a line: operator, shape of the output for one sample, and how many numbers they hold."""
        rows = [("layer", "operator", "output", "parameters")]
        for node in self.nodes:
            count = sum(math.prod(self.parameters[p].shape) for p in node.params.values())
            shape = "x".join(map(str, self.shape(node.name)[1:]))
            rows.append((node.name, node.op, shape, f"{count:,}" if count else ""))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d:>10}".rstrip() for a, b, c, d in rows]
        total = sum(math.prod(p.shape) for p in self.parameters.values())
        takes = ", ".join(f"{name} {'x'.join(map(str, self.shape(name)[1:]))}" for name in self.inputs)
        return "\n".join([f"{self.name}: {takes or 'no input yet'}; {total:,} parameters", *lines])

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that come from outside."""
        return tuple(t.name for t in self.tensors.values() if t.producer is None)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it gives; the loss is of the first."""
        return self._outputs or (self.nodes[-1].name,)

    @outputs.setter
    def outputs(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not names:
            raise ValueError(f"outputs of the graph {self.name} must be one or more names of tensors, got {names!r}")
        for name in names:
            self.shape(name)
        self._outputs = tuple(names)

    @property
    def output(self) -> str:
        """Name of the first output."""
        return self.outputs[0]

    def add_input(
        self, name: str, shape: Sequence[int], dtype: DTypeLike | None = None, quantized: Quantized[str] | None = None
    ) -> str:
        """Add an input tensor (N, *shape); dtype: None is the float dtype of a program. Returns its name.

        quantized: the parameters that hold its scale and zero point, as `add_parameter` adds them. An input of three
        axes called `input` is the map that a size and channels stand for. ValueError where something does not fit.
        """
        self._check_new(name)
        for n in shape:
            arguments.whole(f"each of shape of {name}", n)
        new = Tensor(name, (1, *shape), None if dtype is None else np.dtype(dtype), quantized=quantized)
        check_quantized(name, new, self._held)
        self.tensors[name] = new
        if name == INPUT and len(shape) == 3:
            self.size, self.channels = (shape[0], shape[1]), shape[2]
        return name

    def add_parameter(self, name: str, parameter: Parameter) -> str:
        """Add a parameter of no node, such as the scale of an input, and return its name; ValueError where it is taken.

        Nodes use it by its name.
        """
        if name in self.parameters:
            raise ValueError(f"the graph {self.name} already has a parameter {name!r}")
        check_quantized(name, parameter, self._held)
        self.parameters[name] = parameter
        return name

    def bare(self) -> "Graph":
        """A graph with the same inputs and everything else that this one says of itself, but no nodes yet."""
        new = copy.copy(self)
        new.nodes, new.parameters, new._places = [], {}, {}
        new.tensors = {name: self.tensors[name] for name in self.inputs}
        for q in filter(None, (t.quantized for t in new.tensors.values())):
            new.parameters |= {p: self.parameters[p] for p in (q.scale, q.zero_point) if p in self.parameters}
        return new

    def copy_node(
        self, graph: "Graph", node: Node, inputs: Sequence[str], parameters: Mapping[str, Parameter] | None = None
    ) -> str:
        """Append a node of another graph on other inputs and return its name; its parameters keep their names.

        parameters: those of the other graph in other shapes, default as they are.
        """
        given = graph.parameters | dict(parameters or {})
        outputs = zip(node.operator.outputs, node.outputs, strict=True)
        stands = {local: graph.tensors[t].quantized for local, t in outputs}
        stated = {local: q for local, q in stands.items() if q}
        needed = list(node.params.values())
        for q in (*stated.values(), *(given[p].quantized for p in node.params.values())):
            needed += [name for name in (q.scale, q.zero_point) if name in given] if q else []
        self.parameters |= {p: given[p] for p in needed if p not in self.parameters}
        return self.add_node(node.name, node.op, tuple(inputs), dict(node.attrs), dict(node.params), stated)

    def _check_new(self, name: str) -> None:
        if name in self.tensors:
            raise ValueError(f"the graph {self.name} already has a tensor {name!r}")

    def share(self, own: str, other: str) -> None:
        """Let the nodes that use the parameter `own` use `other` in its place, of the same shape; ShapeError else."""
        mine, theirs = self.parameters[own].shape, self.parameters[other].shape
        if mine != theirs:
            raise ShapeError(f"{own} has the shape {mine}, {other} has {theirs}: nodes cannot share it")
        for place, node in enumerate(self.nodes):
            if own in node.params.values():
                params = {local: other if name == own else name for local, name in node.params.items()}
                self.nodes[place] = replace(node, params=params)
        del self.parameters[own]

    def users(self) -> dict[str, list[tuple[Node, str]]]:
        """Parameter → the nodes that use it, each with the operator's name of it."""
        users: dict[str, list[tuple[Node, str]]] = {name: [] for name in self.parameters}
        for node in self.nodes:
            for local, name in node.params.items():
                users[name].append((node, local))
        return users

    def needed(self) -> list[Node]:
        """The nodes that an output depends on, in their order."""
        wanted = set(self.outputs)
        needed = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs)
                needed.append(node)
        return needed[::-1]

    def reached(self) -> set[str]:
        """Names of the nodes that a gradient of the first output can reach, whose weights can train.

        It stops at the inputs that operators state as STOPS.
        """
        wanted, reached = {self.output}, set[str]()
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                wanted.update(node.passing)
                reached.add(node.name)
        return reached

    def frozen(self) -> list[str]:
        """Names of the nodes with weights that the output needs and no gradient reaches, in their order."""
        reached = self.reached()
        return [node.name for node in self.needed() if node.params and node.name not in reached]

    def node(self, name: str) -> Node:
        """The node called `name`; KeyError where there is none."""
        return self.nodes[self._places[name]]

    def place(self, name: str) -> int:
        """Number of the node called `name`, from 0 in the order in which they run; KeyError where there is none."""
        return self._places[name]

    def shapes(self, batch: int, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor for a batch size and an input size; ShapeError names the node that cannot take it."""
        shapes = {name: (batch, *self.tensors[name].shape[1:]) for name in self.inputs}
        if INPUT in shapes and self.size and self.channels:
            shapes[INPUT] = (batch, *(size or self.size), self.channels)
        for node in self.nodes:
            shapes |= output_shapes(node, shapes, self.parameters)
        return shapes

    def add_node(
        self, name: str, op: str, inputs: tuple[str, ...], attrs: Mapping, params: Mapping[str, Parameter | str],
        quantized: Mapping[str, Quantized[str]] | None = None,
    ) -> str:  # fmt: skip
        """Append a node and return the name of its first output.

        params: the operator's array name → a new parameter, or the name of one that another node uses too. quantized:
        output → what holds its scale and zero point: parameters or outputs of the node by the operator's own names,
        or others by the graph's. ShapeError where its inputs do not fit, ValueError where the name is taken or a dtype
        or a scale does not fit.
        """
        self._check_new(name)
        for x in inputs:
            self.shape(x)
        default = operator(op).defaults
        if attrs.get("pad") == "valid":
            attrs = {**attrs, "pad": 0}
        attrs = {a: canonical(a, v, default[a]) if a in default and v != "same" else v for a, v in attrs.items()}
        for p in params.values():
            if isinstance(p, str) and p not in self.parameters:
                raise ValueError(f"the graph {self.name} has no parameter {p!r}")
        names = {local: p if isinstance(p, str) else f"{name}.{local}" for local, p in params.items()}
        node = Node(name, op, tuple(inputs), attrs, names)
        own = names | dict(zip(node.operator.outputs, node.outputs, strict=True))
        made = {local: p for local, p in params.items() if not isinstance(p, str)}
        parameters = {names[local]: settled(node, local, p, own) for local, p in made.items()}
        known = {p: self.parameters[p] for p in names.values() if p in self.parameters} | parameters
        shapes = output_shapes(node, {x: self.tensors[x].shape for x in inputs}, known)
        for local, p in names.items():
            check_dtype(node, local, known[p].dtype)
        sources = dict(zip(node.operator.locals(len(inputs)), inputs, strict=True))
        for local, x in sources.items():
            check_dtype(node, local, self.tensors[x].dtype)
        tensors = {}
        for local, tensor in zip(node.operator.outputs, node.outputs, strict=True):
            dtype, stands = next(iter(dtypes_of(node.operator.shapes[local])), None), (quantized or {}).get(local)
            new = Tensor(tensor, shapes[tensor], dtype, name, stands and renamed(stands, own))
            if source := sources.get(node.operator.aliases.get(local, "")):
                same = self.tensors[source]
                if new.quantized not in (None, same.quantized):
                    raise ValueError(f"{tensor} is {source} under a new shape, so its scale must be that of {source}")
                new = replace(new, dtype=same.dtype, quantized=same.quantized)
            tensors[tensor] = new
        arrays: dict[str, Parameter | Tensor] = {**parameters, **tensors}
        for what, array in arrays.items():
            check_quantized(what, array, lambda held: arrays.get(held) or self._held(held))
        self.tensors |= tensors
        self.parameters |= parameters
        self._places[name] = len(self.nodes)
        self.nodes.append(node)
        return name

    def _held(self, name: str) -> Parameter | Tensor | None:
        """The parameter or tensor of a name, None where there is none."""
        return self.parameters.get(name) or self.tensors.get(name)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor at batch 1; ValueError where the graph has no such tensor."""
        if tensor not in self.tensors:
            raise ValueError(f"the graph {self.name} has no tensor {tensor!r}; it has {', '.join(self.tensors)}")
        return self.tensors[tensor].shape

    def _shared(self, node: str, op: str, wanted: Mapping[str, Parameter]) -> Mapping[str, Parameter | str]:
        """The parameters of a node, for another one of the same operator that wants such ones to use."""
        if node not in self._places or self.node(node).op != op:
            raise ValueError(f"the graph {self.name} has no {op} {node!r} whose parameters could be shared")
        params = dict(self.node(node).params)
        theirs = {local: self.parameters[p].shape for local, p in params.items()}
        mine = {local: p.shape for local, p in wanted.items()}
        if theirs != mine:
            raise ShapeError(f"{node} has parameters of shapes {theirs}, but these were asked for: {mine}")
        return params
