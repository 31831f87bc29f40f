"""A model as data: nodes in order, each an operator with inputs, attributes and parameter names.

An operator is a module of `refimpl.ops`. Beside its passes it may state INPUTS (default `("x",)`), PARAMS (trainable
arrays), STATE (arrays that training updates without a gradient, such as running statistics) and ALIASES (arrays that
are another one under a new shape). Its output is always `y`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import ModuleType

import numpy as np

from . import arguments
from .geometry import same_pad
from .passes import Bound, Pass, ShapeError, canonical, dims, read_sizes, size_of


@dataclass(frozen=True)
class Operator:
    """What a module of `refimpl.ops` or `refimpl.methods` offers: its passes, by what they write."""

    name: str
    shapes: Mapping[str, str]
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    state: tuple[str, ...]
    aliases: Mapping[str, str]
    passes: Mapping[str, Pass]  # pass name → pass
    derive: object

    def writer(self, array: str) -> Pass | None:
        """The pass that computes `array`."""
        return next((p for p in self.passes.values() if array in p.writes and array not in p.inplace), None)

    @cached_property
    def bound(self) -> list[Bound]:
        """Its passes on a node's own arrays."""
        return [Bound(p) for p in self.passes.values()]

    @cached_property
    def defaults(self) -> dict[str, object]:
        """Default of every attribute of its passes: that of the first pass that has it."""
        return {a: v for p in reversed(self.passes.values()) for a, v in p.attributes.items()}


def passes_of(module: ModuleType) -> dict[str, Pass]:
    """The passes that a module declares, by name, in the order of its text."""
    return {name: p for name, p in vars(module).items() if isinstance(p, Pass) and p.body.__module__ == module.__name__}


@cache
def operator(name: str) -> Operator:
    """The operator of `refimpl/ops/NAME.py`; KeyError where there is none."""
    try:
        module = importlib.import_module(f".ops.{name}", __package__)
    except ModuleNotFoundError as e:
        raise KeyError(f"there is no operator {name!r} in refimpl.ops") from e
    passes = passes_of(module)
    derive = getattr(module, "derive", None) or next((p.derive for p in passes.values() if "y" in p.writes), None)
    return Operator(
        name,
        module.SHAPES,
        getattr(module, "INPUTS", ("x",)),
        getattr(module, "PARAMS", ()),
        getattr(module, "STATE", ()),
        getattr(module, "ALIASES", {}),
        passes,
        derive,
    )


@dataclass(frozen=True)
class Node:
    """One operator in a graph. Its output tensor bears its name."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)  # the operator's array name → parameter name of the graph

    @property
    def operator(self) -> Operator:
        """The operator's declaration."""
        return operator(self.op)


@dataclass(frozen=True)
class Parameter:
    """A named array of the model: its shape and how it starts."""

    shape: tuple[int, ...]
    init: str  # "he": normal with variance gain² · 2 / fan-in; "zeros"; "ones"
    fan_in: int = 1
    gain: float = 1.0


INPUT = "input"


class Graph:
    """Nodes in the order in which they run; the input tensor is called `input`, the output is the last node's.

    Build one by calling its methods: each adds a node and returns the name of its output tensor.
    """

    def __init__(self, name: str, size: tuple[int, int], channels: int):
        """size: rows and columns (H, W) of the input map; channels: its C."""
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise ValueError(f"size of the graph {name} must be rows and columns (H, W), got {size!r}")
        self.name = name
        self.size = (int(size[0]), int(size[1]))
        arguments.whole(f"channels of the graph {name}", channels)
        self.channels = int(channels)
        self.nodes: list[Node] = []
        self._places: dict[str, int] = {}
        self.parameters: dict[str, Parameter] = {}
        self.weights: dict[str, np.ndarray] = {}  # pre-trained values; parameters without one start from the seed
        self.options: dict = {}  # what `models.build` needs beside classes, size and channels to build it again
        self.pixels = (0.0, 1.0)  # input values that stand for a pixel of 0 and of 255
        self._shapes = {INPUT: (1, *self.size, self.channels)}

    @property
    def output(self) -> str:
        """Name of the last tensor."""
        return self.nodes[-1].name

    def node(self, name: str) -> Node:
        """The node called `name`; KeyError where there is none."""
        return self.nodes[self._places[name]]

    def place(self, name: str) -> int:
        """Number of the node called `name`, from 0 in the order in which they run; KeyError where there is none."""
        return self._places[name]

    def shapes(self, batch: int, size: tuple[int, int] | None = None) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor for a batch size and an input size; ShapeError names the node that cannot take it."""
        found = {INPUT: (batch, *(size or self.size), self.channels)}
        for node in self.nodes:
            found[node.name] = output_shape(node, found, self.parameters)
        return found

    def add_node(self, name: str, op: str, inputs: tuple[str, ...], attrs: dict, params: dict[str, Parameter]) -> str:
        """Append a node; ShapeError where its inputs do not fit, ValueError where the name is taken."""
        if name in self._shapes:
            raise ValueError(f"the graph {self.name} already has a tensor {name!r}")
        for x in inputs:
            self.shape(x)
        known = operator(op).defaults
        attrs = {a: canonical(a, v, known[a]) if a in known and v != "same" else v for a, v in attrs.items()}
        node = Node(name, op, tuple(inputs), attrs, {local: f"{name}.{local}" for local in params})
        parameters = {f"{name}.{local}": p for local, p in params.items()}
        self._shapes[name] = output_shape(node, self._shapes, self.parameters | parameters)
        self.parameters |= parameters
        self._places[name] = len(self.nodes)
        self.nodes.append(node)
        return name

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Shape of a tensor at batch 1; ValueError where the graph has no such tensor."""
        if tensor not in self._shapes:
            raise ValueError(f"the graph {self.name} has no tensor {tensor!r}; it has {', '.join(self._shapes)}")
        return self._shapes[tensor]

    # One method per operator, in the order of refimpl.ops.

    def conv2d(self, name, x, channels, kernel, stride=1, pad=0, dilation=1, groups=1, bias=False) -> str:
        """Convolution with `channels` outputs; pad: rows and columns, ((top, bottom), (left, right)) or "same"."""
        r, s = (kernel, kernel) if isinstance(kernel, int) else kernel
        arguments.whole(f"channels of {name}", channels)
        depth = self.shape(x)[3] // groups
        if depth * groups != self.shape(x)[3]:
            raise ShapeError(f"{name}: {x} has C={self.shape(x)[3]}, which is not a multiple of G={groups} groups")
        params = {"w": Parameter((r, s, depth, channels), "he", r * s * depth)}
        if bias:
            params["b"] = Parameter((channels,), "zeros")
        return self.add_node(name, "conv2d", (x,), {"stride": stride, "pad": pad, "dilation": dilation}, params)

    def linear(self, name, x, features, bias=True) -> str:
        """Linear layer on (N, D)."""
        arguments.whole(f"features of {name}", features)
        fan_in = self.shape(x)[1]
        params = {"w": Parameter((fan_in, features), "he", fan_in)}
        if bias:
            params["b"] = Parameter((features,), "zeros")
        return self.add_node(name, "linear", (x,), {}, params)

    def batch_norm(self, name, x, eps=1e-5, momentum=0.1) -> str:
        """Batch normalisation; frozen or with batch statistics, as the plan says."""
        c = (self.shape(x)[3],)
        ones, zeros = Parameter(c, "ones"), Parameter(c, "zeros")
        params = {"gamma": ones, "beta": zeros, "running_mean": zeros, "running_var": ones}
        return self.add_node(name, "batch_norm", (x,), {"eps": eps, "momentum": momentum}, params)

    def relu(self, name, x) -> str:
        """max(x, 0)."""
        return self.add_node(name, "relu", (x,), {}, {})

    def relu6(self, name, x) -> str:
        """min(max(x, 0), 6)."""
        return self.add_node(name, "relu6", (x,), {}, {})

    def block_prune(self, name, x, block=2, threshold=0.0) -> str:
        """Zero where a whole block of a channel is below `threshold` in magnitude, identity elsewhere."""
        return self.add_node(name, "block_prune", (x,), {"block": block, "threshold": threshold}, {})

    def max_pool(self, name, x, window, stride=None, pad=0) -> str:
        """Maximum of each window; the stride defaults to the window."""
        return self.add_node(name, "max_pool", (x,), {"window": window, "stride": stride or window, "pad": pad}, {})

    def avg_pool(self, name, x, window, stride=None, pad=0) -> str:
        """Mean of each window; the stride defaults to the window."""
        return self.add_node(name, "avg_pool", (x,), {"window": window, "stride": stride or window, "pad": pad}, {})

    def global_avg_pool(self, name, x) -> str:
        """Mean of the whole map: (N, H, W, C) to (N, C)."""
        return self.add_node(name, "global_avg_pool", (x,), {}, {})

    def add(self, name, a, b) -> str:
        """Sum of two branches."""
        return self.add_node(name, "add", (a, b), {}, {})

    def flatten(self, name, x) -> str:
        """(N, H, W, C) to (N, D)."""
        return self.add_node(name, "flatten", (x,), {}, {})

    def dropout(self, name, x, rate=0.5) -> str:
        """Zero with probability `rate` in training, identity otherwise."""
        return self.add_node(name, "dropout", (x,), {"rate": rate}, {})


def output_shape(node: Node, shapes: Mapping, parameters: Mapping[str, Parameter]) -> tuple[int, ...]:
    """Shape of a node's output; ShapeError names the node."""
    op = node.operator
    arrays = {local: _Shaped(shapes[tensor]) for local, tensor in zip(op.inputs, node.inputs, strict=True)}
    arrays |= {local: _Shaped(parameters[p].shape) for local, p in node.params.items() if local in op.shapes}
    try:
        sizes = read_sizes(op.shapes, arrays)
        attrs = node_attrs(node, sizes)
        if op.derive:
            sizes |= op.derive(sizes, attrs)
        if op.shapes["y"].endswith("*"):  # element by element: y has the unmerged shape of the input of its entry
            return tuple(next(v.shape for a, v in arrays.items() if op.shapes[a] == op.shapes["y"]))
        return tuple(size_of(d, sizes) for d in dims(op.shapes["y"]))
    except ShapeError as e:
        raise ShapeError(f"node {node.name} ({node.op}): {e}") from None


def node_attrs(node: Node, sizes: Mapping[str, int]) -> dict:
    """A node's attributes with the operator's defaults, and `pad="same"` worked out for its input size."""
    op = node.operator
    attrs = {**op.defaults, **node.attrs}
    if attrs.get("pad") == "same":
        windows = attrs.get("window") or (sizes["R"], sizes["S"])
        attrs["pad"] = tuple(
            same_pad(sizes[size], windows[i], attrs["stride"][i], attrs.get("dilation", (1, 1))[i])
            for i, size in enumerate("HW")
        )
    return attrs


@dataclass(frozen=True)
class _Shaped:
    """A shape where an array is expected."""

    shape: tuple[int, ...]
