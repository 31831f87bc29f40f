"""A model as data: named tensors, and nodes in order, each an operator with inputs, outputs, attributes and parameters.

What an operator is, and what it states of itself, is in `refimpl.ops`.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import DTypeLike

from . import arguments
from .data.pixels import Level
from .kernels.geometry import MOST_DIGITS, ceil_pad, same_pad
from .kernels.passes import ShapeError, canonical, dtypes_of, full_shape, read_sizes, starred_axes
from .kernels.quantized import Quantized, check_quantized
from .kernels.resizing import resized
from .ops import Operator, operator
from .ops.cubic_resize import reaches


@dataclass(frozen=True)
class Tensor:
    """A named array between nodes. shape: at a batch of one sample. dtype: None is the float dtype of a program.

    producer: the node that writes it, None for an input. quantized: by the names of parameters or tensors of the graph.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype | None = None
    producer: str | None = None
    quantized: Quantized[str] | None = None


@dataclass(frozen=True)
class Node:
    """One operator in a graph. Its first output tensor bears its name, another one `name.output`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)  # the operator's array name → parameter name of the graph

    @property
    def operator(self) -> Operator:
        """The operator's declaration."""
        return operator(self.op)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its output tensors, in the order of the operator's OUTPUTS."""
        return self.name, *(f"{self.name}.{local}" for local in self.operator.outputs[1:])

    @property
    def passing(self) -> tuple[str, ...]:
        """Its inputs without those at which gradients stop."""
        op = self.operator
        pairs = zip(op.locals(len(self.inputs)), self.inputs, strict=True)
        return tuple(tensor for local, tensor in pairs if local not in op.stops)


DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


@dataclass(frozen=True)
class Parameter:
    """A named array of the model: its shape and how it starts. ValueError for a dtype that no kernel reads.

    dtype: one of DTYPES that the operator takes; None is the one that it names, else the float dtype of a program.
    quantized: where its scale and zero point are, by the operator's own names or those of parameters of the graph.
    """

    shape: tuple[int, ...]
    init: str  # "he": normal with variance gain² · 2 / fan-in; "zeros"; "ones"
    fan_in: int = 1
    gain: float = 1.0
    dtype: np.dtype | None = None
    quantized: Quantized[str] | None = None

    def __post_init__(self):
        if self.dtype is not None:
            object.__setattr__(self, "dtype", np.dtype(self.dtype))
            if self.dtype not in DTYPES:
                raise ValueError(f"a parameter can be of {', '.join(DTYPES)}, got {self.dtype}")

    def nbytes(self, dtype: DTypeLike) -> int:
        """Its bytes in a program of this float dtype."""
        return math.prod(self.shape) * np.dtype(self.dtype or dtype).itemsize


INPUT = "input"
Pair = int | tuple[int, int]  # rows and columns, or one number for both
Pad = Pair | tuple[tuple[int, int], tuple[int, int]] | str  # ((top, bottom), (left, right)), "same", "valid" (none)


class Graph:
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
        parameters = {names[local]: _settled(node, local, p, own) for local, p in made.items()}
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
            new = Tensor(tensor, shapes[tensor], dtype, name, stands and _named(stands, own))
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

    # One method per operator, in the order of refimpl.ops.

    def conv2d(
        self, name: str, x: str, channels: int, kernel: Pair, stride: Pair = 1, pad: Pad = 0, dilation: Pair = 1,
        groups: int = 1, bias: bool = False, shared: str | None = None,
    ) -> str:  # fmt: skip
        """Convolution with `channels` outputs; pad: rows and columns, sides as in `Pad`, "same" or "valid".

        shared: another convolution whose weights and bias it uses too.
        """
        r, s = (kernel, kernel) if isinstance(kernel, int) else kernel
        arguments.whole(f"channels of {name}", channels)
        depth = self.shape(x)[3] // groups
        if depth * groups != self.shape(x)[3]:
            raise ShapeError(f"{name}: {x} has C={self.shape(x)[3]}, which is not a multiple of G={groups} groups")
        params = {"w": Parameter((r, s, depth, channels), "he", r * s * depth)}
        if bias:
            params["b"] = Parameter((channels,), "zeros")
        used: Mapping[str, Parameter | str] = params if shared is None else self._shared(shared, "conv2d", params)
        return self.add_node(name, "conv2d", (x,), {"stride": stride, "pad": pad, "dilation": dilation}, used)

    def linear(self, name: str, x: str, features: int, bias: bool = True, shared: str | None = None) -> str:
        """Linear layer on the last axis of x (N, …, D). shared: another one whose weights and bias it uses too."""
        arguments.whole(f"features of {name}", features)
        fan_in = self.shape(x)[-1]
        params = {"w": Parameter((fan_in, features), "he", fan_in)}
        if bias:
            params["b"] = Parameter((features,), "zeros")
        return self.add_node(
            name, "linear", (x,), {}, params if shared is None else self._shared(shared, "linear", params)
        )

    def batch_norm(self, name: str, x: str, eps: float = 1e-5, momentum: float = 0.1) -> str:
        """Batch normalisation; frozen or with batch statistics, as the plan says."""
        c = (self.shape(x)[3],)
        ones, zeros = Parameter(c, "ones"), Parameter(c, "zeros")
        params = {"gamma": ones, "beta": zeros, "running_mean": zeros, "running_var": ones}
        return self.add_node(name, "batch_norm", (x,), {"eps": eps, "momentum": momentum}, params)

    def group_norm(self, name: str, x: str, groups: int = 1, eps: float = 1e-5) -> str:
        """Normalisation of each sample over a map and the channels of each of `groups`; one a channel: of instances."""
        c = (self.shape(x)[3],)
        params = {"gamma": Parameter(c, "ones"), "beta": Parameter(c, "zeros")}
        return self.add_node(name, "group_norm", (x,), {"groups": groups, "eps": eps}, params)

    def relu(self, name: str, x: str) -> str:
        """max(x, 0)."""
        return self.add_node(name, "relu", (x,), {}, {})

    def relu6(self, name: str, x: str) -> str:
        """min(max(x, 0), 6)."""
        return self.add_node(name, "relu6", (x,), {}, {})

    def gelu(self, name: str, x: str, approximate: bool = False) -> str:
        """x·Φ(x), Φ the normal distribution function; approximate: its form with a tanh."""
        return self.add_node(name, "gelu", (x,), {"approximate": approximate}, {})

    def sigmoid(self, name: str, x: str) -> str:
        """1 / (1 + exp(−x))."""
        return self.add_node(name, "sigmoid", (x,), {}, {})

    def silu(self, name: str, x: str) -> str:
        """x / (1 + exp(−x)), also called swish."""
        return self.add_node(name, "silu", (x,), {}, {})

    def tanh(self, name: str, x: str) -> str:
        """Hyperbolic tangent."""
        return self.add_node(name, "tanh", (x,), {}, {})

    def hard_sigmoid(self, name: str, x: str, alpha: float = 1 / 6, beta: float = 0.5) -> str:
        """min(max(alpha·x + beta, 0), 1); the defaults are PyTorch's."""
        return self.add_node(name, "hard_sigmoid", (x,), {"alpha": alpha, "beta": beta}, {})

    def hard_swish(self, name: str, x: str) -> str:
        """x·min(max(x/6 + 1/2, 0), 1)."""
        return self.add_node(name, "hard_swish", (x,), {}, {})

    def leaky_relu(self, name: str, x: str, slope: float = 0.01) -> str:
        """x where it is above 0, else slope·x."""
        return self.add_node(name, "leaky_relu", (x,), {"slope": slope}, {})

    def clip(self, name: str, x: str, low: float = -math.inf, high: float = math.inf) -> str:
        """min(max(x, low), high); ShapeError where low is above high."""
        bounds = {"low": low} if low != -math.inf else {}
        bounds |= {"high": high} if high != math.inf else {}
        return self.add_node(name, "clip", (x,), bounds, {})  # a file says no number that is not finite

    def reciprocal(self, name: str, x: str) -> str:
        """1/x, element by element."""
        return self.add_node(name, "reciprocal", (x,), {}, {})

    def square_root(self, name: str, x: str) -> str:
        """√x, element by element."""
        return self.add_node(name, "square_root", (x,), {}, {})

    def exponential(self, name: str, x: str) -> str:
        """exp(x), element by element."""
        return self.add_node(name, "exponential", (x,), {}, {})

    def logarithm(self, name: str, x: str) -> str:
        """The natural logarithm of x, element by element."""
        return self.add_node(name, "logarithm", (x,), {}, {})

    def absolute_value(self, name: str, x: str) -> str:
        """|x|, element by element."""
        return self.add_node(name, "absolute_value", (x,), {}, {})

    def error_function(self, name: str, x: str) -> str:
        """erf(x), element by element."""
        return self.add_node(name, "error_function", (x,), {}, {})

    def smooth_relu(self, name: str, x: str) -> str:
        """log(1 + exp(x)), also called softplus."""
        return self.add_node(name, "smooth_relu", (x,), {}, {})

    def softsign(self, name: str, x: str) -> str:
        """x/(1 + |x|)."""
        return self.add_node(name, "softsign", (x,), {}, {})

    def staircase(self, name: str, x: str, kind: int = 0) -> str:
        """x as whole numbers: 0 those below, 1 those above, 2 the nearest, 3 towards 0. Gradients stop here."""
        return self.add_node(name, "staircase", (x,), {"kind": kind}, {})

    def by_sign(self, name: str, x: str, below: float = -1.0, at: float = 0.0, above: float = 1.0) -> str:
        """A number for each sign of x: below 0, at 0, above 0. Gradients stop here."""
        return self.add_node(name, "by_sign", (x,), {"below": below, "at": at, "above": above}, {})

    def constant_like(self, name: str, x: str, value: float = 0.0) -> str:
        """One number in the shape of x. Gradients stop here."""
        return self.add_node(name, "constant_like", (x,), {"value": value}, {})

    def one_of_two(self, name: str, condition: str, a: str, b: str) -> str:
        """a where the condition is above 0, else b, of one shape. At the condition gradients stop."""
        return self.add_node(name, "one_of_two", (condition, a, b), {}, {})

    def elu(self, name: str, x: str, alpha: float = 1.0) -> str:
        """x where it is above 0, else alpha·(exp(x) − 1)."""
        return self.add_node(name, "elu", (x,), {"alpha": alpha}, {})

    def prelu(self, name: str, x: str, shape: Sequence[int]) -> str:
        """x where it is above 0, else w·x, w the same for every sample; shape: as in `add_weight`."""
        return self.add_node(name, "prelu", (x,), {}, {"w": Parameter(tuple(shape), "zeros")})

    def block_prune(self, name: str, x: str, block: Pair = 2, threshold: float = 0.0) -> str:
        """Zero where a whole block of a channel is below `threshold` in magnitude, identity elsewhere."""
        return self.add_node(name, "block_prune", (x,), {"block": block, "threshold": threshold}, {})

    def max_pool(
        self, name: str, x: str, window: Pair, stride: Pair | None = None, pad: Pad = 0, ceil: bool = False
    ) -> str:
        """Maximum of each window; the stride defaults to the window.

        ceil: as many windows as begin before the map ends, not only those that fit with the padding.
        """
        attrs, _ = _pooling(window, stride or window, pad, ceil)  # nothing of the padding counts
        return self.add_node(name, "max_pool", (x,), attrs, {})

    def avg_pool(
        self, name: str, x: str, window: Pair, stride: Pair | None = None, pad: Pad = 0, ceil: bool = False,
        count_include_pad: bool = True,
    ) -> str:  # fmt: skip
        """Mean of each window; the stride defaults to the window. ceil: as in `max_pool`.

        count_include_pad: do elements of the padding count, as zeros? What lies beyond it never does.
        """
        attrs, overhang = _pooling(window, stride or window, pad, ceil)
        attrs |= {"overhang": overhang} if any(overhang) else {}
        attrs |= {} if count_include_pad is True else {"count_include_pad": count_include_pad}
        return self.add_node(name, "avg_pool", (x,), attrs, {})

    def interpolate(
        self, name: str, x: str, size: Pair = 0, scale: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1)),
        smooth: bool = False, grid: Pair = 0, rounding: int = 0,
    ) -> str:  # fmt: skip
        """A map in another size: `size` rows and columns, or where that is 0, `scale` times as many, as a quotient.

        smooth: linear between neighbours, else the nearest; grid: how places correspond, 0 by halves of pixels, 1
        corners on corners, 2 first on first; rounding, of the nearest: 0 half down, 1 half up, 2 down, 3 up.
        """
        attrs = {"size": size, "scale": scale, "smooth": smooth, "grid": grid, "rounding": rounding}
        return self.add_node(name, "interpolate", (x,), attrs, {})

    def cubic_resize(
        self, name: str, x: str, size: Pair = 0, scale: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1)),
        grid: Pair = 0, cubic: bool = True, bend: float = -0.75, shrink: bool = False, exclude: bool = False,
    ) -> str:  # fmt: skip
        """A map in another size by a cubic or linear filter; size, scale and grid as in `interpolate`.

        bend: of the cubic one; shrink: it is wider where the map becomes smaller (antialiasing); exclude: what lies
        beyond the map has no share.
        """
        attrs: dict = {"size": size if isinstance(size, tuple) else (size, size), "scale": scale, "shrink": shrink}
        attrs |= {"cubic": cubic}
        letters = dict(zip("HW", self.shape(x)[1:3], strict=True))
        attrs["reach"] = reaches(letters | resized(letters, attrs), attrs)
        return self.add_node(
            name, "cubic_resize", (x,), attrs | {"grid": grid, "bend": bend, "exclude": exclude}, {}
        )  # fmt: skip

    def border(
        self,
        name: str,
        x: str,
        sides: Sequence[tuple[int, int]],
        channels: tuple[int, int] = (0, 0),
        value: float = 0.0,
        mode: int = 0,
    ) -> str:
        """A map in a border: ((top, bottom), (left, right)), and channels before and behind its own.

        mode: 0 of `value`; or of the map itself: 1 of its last element, 2 mirrored at that, 3 from its other end.
        """
        return self.add_node(name, "border", (x,), {"sides": (*sides, channels), "value": value, "mode": mode}, {})

    def sum_over(self, name: str, x: str, over: Sequence[int] = (1, 1, 0), mean: bool = False) -> str:
        """Sums, or means, over rows, columns and channels of a map where `over` says 1; these stay with length 1."""
        return self.add_node(name, "sum_over", (x,), {"over": over, "mean": mean}, {})

    def norm_over(self, name: str, x: str, over: Sequence[int] = (1, 1, 0)) -> str:
        """Euclidean norms, over axes as in `sum_over`."""
        return self.add_node(name, "norm_over", (x,), {"over": over}, {})

    def max_over(self, name: str, x: str, over: Sequence[int] = (1, 1, 0)) -> str:
        """Maxima, over axes as in `sum_over`."""
        return self.add_node(name, "max_over", (x,), {"over": over}, {})

    def arg_max(self, name: str, x: str, over: Sequence[int] = (1, 1, 0), last: bool = False) -> str:
        """Places of the maxima, as floats, over axes as in `sum_over`; last: of equal ones. Gradients stop here."""
        return self.add_node(name, "arg_max", (x,), {"over": over, "last": last}, {})

    def top_values(self, name: str, x: str, count: int, smallest: bool = False) -> str:
        """The `count` largest, or smallest, elements along the last axis, in their order."""
        return self.add_node(name, "top_values", (x,), {"count": count, "smallest": smallest}, {})

    def top_places(self, name: str, x: str, count: int, smallest: bool = False) -> str:
        """Where these stand, as floats. Gradients stop here."""
        return self.add_node(name, "top_places", (x,), {"count": count, "smallest": smallest}, {})

    def one_hot(self, name: str, x: str, depth: int, on: float = 1.0, off: float = 0.0) -> str:
        """A row of `depth` numbers for each index of a map of one channel: `on` at its place, else `off`."""
        return self.add_node(name, "one_hot", (x,), {"depth": depth, "on": on, "off": off}, {})

    def spread_out(self, name: str, x: str, size: Sequence[int]) -> str:
        """A map spread to `size` rows, columns and channels along its axes of length 1."""
        return self.add_node(name, "spread_out", (x,), {"size": size}, {})

    def global_avg_pool(self, name: str, x: str) -> str:
        """Mean of the whole map: (N, H, W, C) to (N, C)."""
        return self.add_node(name, "global_avg_pool", (x,), {}, {})

    def add(self, name: str, a: str, b: str) -> str:
        """Sum of two branches."""
        return self.add_node(name, "add", (a, b), {}, {})

    def sub(self, name: str, a: str, b: str) -> str:
        """a − b, of one shape."""
        return self.add_node(name, "sub", (a, b), {}, {})

    def mul(self, name: str, a: str, b: str) -> str:
        """Product of two branches of one shape, element by element."""
        return self.add_node(name, "mul", (a, b), {}, {})

    def scale_channels(self, name: str, x: str, scale: str) -> str:
        """A map x (N, H, W, C) times scale (N, C), one factor for each channel of a sample."""
        return self.add_node(name, "scale_channels", (x, scale), {}, {})

    def affine(self, name: str, x: str, factor: float = 1.0, offset: float = 0.0) -> str:
        """factor·x + offset, two numbers that do not train."""
        return self.add_node(name, "affine", (x,), {"factor": factor, "offset": offset}, {})

    def add_weight(self, name: str, x: str, shape: Sequence[int]) -> str:
        """x + w, w the same for every sample; shape: that of w, each axis of a sample, or 1 where all share one."""
        return self.add_node(name, "add_weight", (x,), {}, {"w": Parameter(tuple(shape), "zeros")})

    def mul_weight(self, name: str, x: str, shape: Sequence[int]) -> str:
        """x·w, w the same for every sample; shape: as in `add_weight`."""
        return self.add_node(name, "mul_weight", (x,), {}, {"w": Parameter(tuple(shape), "ones")})

    def add_spread(self, name: str, x: str, other: str) -> str:
        """x + other, which has the axes of x, each whole or of length 1, where one number stands for all."""
        return self.add_node(name, "add_spread", (x, other), {}, {})

    def mul_spread(self, name: str, x: str, other: str) -> str:
        """x·other, which is as in `add_spread`; one factor for each channel of a map is `scale_channels`."""
        return self.add_node(name, "mul_spread", (x, other), {}, {})

    def concat(self, name: str, *inputs: str) -> str:
        """Tensors that differ in their last axis only, side by side along it."""
        return self.add_node(name, "concat", inputs, {}, {})

    def channel_slice(self, name: str, x: str, start: int, count: int) -> str:
        """The channels start … start + count − 1 of the last axis."""
        return self.add_node(name, "channel_slice", (x,), {"start": start, "count": count}, {})

    def channel_shuffle(self, name: str, x: str, groups: int) -> str:
        """The channels of `groups` groups, dealt out in turn."""
        return self.add_node(name, "channel_shuffle", (x,), {"groups": groups}, {})

    def flatten(self, name: str, x: str) -> str:
        """(N, …) to (N, D)."""
        return self.add_node(name, "flatten", (x,), {}, {})

    def as_map(self, name: str, x: str) -> str:
        """Features (N, C) as a map of one pixel, (N, 1, 1, C)."""
        return self.add_node(name, "as_map", (x,), {}, {})

    def reshape(self, name: str, x: str, size: tuple[int, int]) -> str:
        """(N, …) as maps of `size` rows and columns, the elements of a sample in their order."""
        return self.add_node(name, "reshape", (x,), {"size": size}, {})

    def rearrange(
        self, name: str, x: str, size: tuple[int, int], lengths: Sequence[int], steps: Sequence[int]
    ) -> str:  # fmt: skip
        """The elements of a sample in the order of digits, as maps of `size`: at most six `lengths` and `steps`."""
        fill = MOST_DIGITS - len(lengths)
        attrs = {"lengths": (*lengths, *(1,) * fill), "steps": (*steps, *(0,) * fill), "size": size}
        return self.add_node(name, "rearrange", (x,), attrs, {})

    def layer_norm(self, name: str, x: str, eps: float = 1e-5) -> str:
        """Layer normalisation along the last axis of x (N, …, C)."""
        c = (self.shape(x)[-1],)
        params = {"gamma": Parameter(c, "ones"), "beta": Parameter(c, "zeros")}
        return self.add_node(name, "layer_norm", (x,), {"eps": eps}, params)

    def softmax(self, name: str, x: str) -> str:
        """Softmax along the last axis of x (N, …, C)."""
        return self.add_node(name, "softmax", (x,), {}, {})

    def matmul(self, name: str, a: str, b: str, transposed: bool = False) -> str:
        """Products a · b of (N, G, P, D) and (N, G, D, K), for each sample and group; transposed: b is (…, K, D)."""
        return self.add_node(name, "matmul", (a, b), {"transposed": transposed}, {})

    def attach(self, name: str, x: str, count: int, after: bool = False) -> str:
        """`count` weights before the elements of each row of a map (N, H, W, C), or behind them: a class token."""
        arguments.whole(f"count of {name}", count)
        w = Parameter((*self.shape(x)[1:3], count), "zeros")
        return self.add_node(name, "attach", (x,), {"after": after} if after else {}, {"w": w})

    def dropout(self, name: str, x: str, rate: float = 0.5) -> str:
        """Zero with probability `rate` in training, identity otherwise."""
        return self.add_node(name, "dropout", (x,), {"rate": rate}, {})


def _pooling(window: Pair, stride: Pair, pad: Pad, ceil: bool) -> tuple[dict, tuple[int, int]]:
    """Attributes of a pooling, and the rows and columns by which a ceil mode adds to the padding."""
    attrs = {"window": window, "stride": stride, "pad": pad}
    if not ceil or pad == "same":  # which is rounded up as it is
        return attrs, (0, 0)
    sides = canonical("pad", 0 if pad == "valid" else pad, ((0, 0), (0, 0)))
    windows, strides = canonical("window", window, (1, 1)), canonical("stride", stride, (1, 1))
    rows, columns = (ceil_pad(*axis) for axis in zip(windows, strides, sides, strict=True))
    return attrs | {"pad": (rows, columns)}, (rows[1] - sides[0][1], columns[1] - sides[1][1])


def output_shapes(
    node: Node, shapes: Mapping[str, tuple[int, ...]], parameters: Mapping[str, Parameter]
) -> dict[str, tuple[int, ...]]:
    """Shape of each output tensor of a node; ShapeError names the node."""
    op = node.operator
    try:
        arrays = {local: _Shaped(shapes[t]) for local, t in zip(op.locals(len(node.inputs)), node.inputs, strict=True)}
        arrays |= {local: _Shaped(parameters[p].shape) for local, p in node.params.items()}
        entries = {a: op.shapes[a] for a in arrays if a in op.shapes}
        known = {a: arrays[a] for a in entries}
        axes = starred_axes(entries, known)
        sizes = read_sizes(op.shapes, known)
        if op.bind:
            inputs = {local: arrays[local] for local in op.locals(len(node.inputs))}
            sizes |= op.bind(list(inputs.values())).sizes
            axes |= starred_axes(dict.fromkeys(inputs, op.shapes["x"]), inputs)
        if op.derive:
            sizes |= op.derive(sizes, node_attrs(node, sizes))
        outputs = zip(op.outputs, node.outputs, strict=True)
        return {tensor: full_shape(op.shapes[local], sizes, axes) for local, tensor in outputs}
    except ShapeError as e:
        raise ShapeError(f"node {node.name} ({node.op}): {e}") from None


def _named(quantized: Quantized[str], own: Mapping[str, str]) -> Quantized[str]:
    """The same by the graph's names. own: the operator's name of an array of the node → the graph's."""
    zero = quantized.zero_point
    return replace(quantized, scale=own.get(quantized.scale, quantized.scale), zero_point=zero and own.get(zero, zero))


def _settled(node: Node, local: str, parameter: Parameter, own: Mapping[str, str]) -> Parameter:
    """A new parameter of a node with the dtype that its operator names, and its scale by the graph's name."""
    named = dtypes_of(node.operator.shapes.get(local, ""))
    dtype = named[0] if parameter.dtype is None and len(named) == 1 else parameter.dtype
    if dtype is None:
        return parameter  # of floats
    return replace(parameter, dtype=dtype, quantized=parameter.quantized and _named(parameter.quantized, own))


def check_dtype(node: Node, local: str, dtype: np.dtype | None) -> None:
    """ValueError where an operator's array is not of a dtype that it takes; one that no pass reads has any."""
    op = node.operator
    entry = op.shapes.get(local) or op.shapes["x"]  # of several inputs each is one
    named = dtypes_of(entry)
    if dtype not in (named or (None,)) and (named or any(local in p.arrays for p in op.passes.values())):
        wanted = " or ".join(map(str, named)) or "the float dtype of the program"
        raise ValueError(f"node {node.name} ({node.op}): {local} must be of {wanted}, got {dtype or 'that of floats'}")


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
