"""The state of a walk through an ONNX graph, and a node of it as its converter sees it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...graph import Graph
from ...storage.files import quoted
from . import model_file
from .model_file import STANDARD, ModelFile
from .value import MAP, NO_PAD, ROW, Sides, Stored, Told, Unsupported, Value

WEIGHT = ".weight"  # what PyTorch's names of weights end with: the rest is that of the layer
MOST_FOLDED = 2**22  # elements of what is computed at once


class OnnxNode:
    """A node of the ONNX graph, as its converter sees it."""

    def __init__(self, walk: "Walk", node: Any, name: str):
        self.walk, self.node, self.op = walk, node, node.op_type
        self.graph, self.opset = walk.graph, walk.file.opset
        weights = next((n for n in node.input if n in walk.file.constants and n.endswith(WEIGHT)), None)
        self.name = walk.unique(weights.removesuffix(WEIGHT) if weights else readable(name, node))

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute: a number, a text, an array, or a tuple of them; `default` where the node has none."""
        import onnx

        found = next((a for a in self.node.attribute if a.name == name), None)
        if found is None:
            return default
        value = onnx.helper.get_attribute_value(found)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, onnx.TensorProto):
            return model_file.array(value, self.walk.folder, self.walk.what)
        return value if isinstance(value, int | float | str) else tuple(value)

    def __len__(self) -> int:
        return len(self.node.input)

    def given(self, i: int) -> bool:
        """Has it an input number i?"""
        return i < len(self.node.input) and bool(self.node.input[i])

    def value(self, i: int) -> Value | np.ndarray:
        """Input number i: an array where it depends on no input of the graph. Unsupported where it is left out."""
        if not self.given(i):
            raise Unsupported(f"{self.op} has no input {i}")
        return self.walk.values[self.node.input[i]]

    def constant(self, i: int, what: str, default: Any = None) -> np.ndarray:
        """Input number i, which must be a constant; `default` where it is left out."""
        if not self.given(i):
            return default
        found = self.value(i)
        if isinstance(found, Value):
            raise Unsupported(f"its {what} depends on the input of the graph")
        if found.dtype.kind not in "iuf":
            raise Unsupported(f"its {what} is of {found.dtype}")
        return found

    def tensor(self, i: int) -> Value:
        """Input number i, which must depend on the input of the graph, and not be padded."""
        found = self.padded(i)
        if found.pad != NO_PAD:
            raise Unsupported("its input is padded apart, which is read before a convolution alone")
        return found

    def padded(self, i: int) -> Value:
        """Input number i, which must depend on the input of the graph, and may be padded with zeros."""
        found = self.value(i)
        if not isinstance(found, Value):
            raise Unsupported(f"its input {quoted(self.node.input[i])!r} is a constant")
        return found

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value in ONNX's order, at a batch of one."""
        return self.walk.shape(value)

    def map(self, i: int) -> str:
        """Our tensor (N, H, W, C) of input number i, which is (N, C, H, W), or (N, C, T) as a map of one row.

        Without the padding that it may have.
        """
        value = self.padded(i)
        rank, wanted = len(value.axes), {4: MAP, 3: ROW}.get(len(value.axes))
        if wanted is None:
            raise Unsupported(f"its input has {rank} axes, maps have 4 (N, C, H, W), or 3 (N, C, T)")
        if None in value.axes[2:]:  # what is of length 1 there may be an axis of ours that has no name
            rest = iter(sorted(set(range(len(self.graph.shape(value.tensor)))) - set(value.axes)))
            axes = tuple(next(rest, None) if axis is None else axis for axis in value.axes)
            value = value if None in axes else replace(value, axes=axes)
        if value.axes == wanted:
            return value.tensor
        if value.mixed is None and value.axes[:2] == (0, 1) and set(value.axes[2:]) == {None}:
            return self.walk.once(value.tensor, "map", lambda name: self.graph.as_map(name, value.tensor))
        raise Unsupported(f"its input is arranged as {value.axes}, which would need a transpose")

    def features(self, i: int) -> Value:
        """Input number i as (N, D): axes of length 1 are left out."""
        value = self.walk.features(self.tensor(i))
        if value.axes == (0, 1):
            return value
        raise Unsupported(f"its input has the shape {self.shape(value)}, features are (N, D)")

    def store(self, parameter: str, place: int, axes: Sequence[int], node: Any = None, **more: Any) -> None:
        """Parameter `parameter` of our graph is input number `place`, a constant. node: whose, default this one's."""
        node = node or self.node
        self.walk.store(parameter, Stored(node.input[place], node.output[0], place, tuple(axes), **more))

    def give(
        self, tensor: str, axes: Sequence[int | None], mixed: tuple[int, int, int] | None = None, pad: Sides = NO_PAD,
        output: int = 0,
    ) -> None:  # fmt: skip
        """Its output, the first or number `output`, is our tensor."""
        self.walk.values[self.node.output[output]] = Value(tensor, tuple(axes), mixed, pad)

    def consumers(self, node: Any = None) -> list[Any]:
        """The nodes that read its first output, or another node's; the graph's own output is one, None."""
        return self.walk.consumers.get((node or self.node).output[0], [])

    def only_consumer(self, op: str, node: Any = None) -> Any:
        """The only node that reads its first output, or another node's, where it is an `op`; else None."""
        found = self.consumers(node)
        return found[0] if len(found) == 1 and found[0] is not None and found[0].op_type == op else None

    def number(self, node: Any, but: str) -> float | None:
        """The one number that a node of two inputs takes beside `but`; None where that is no constant, or several."""
        other = next((name for name in node.input if name != but), None)
        found = self.walk.values.get(other) if other else None
        return float(found.reshape(-1)[0]) if isinstance(found, np.ndarray) and found.size == 1 else None

    def alone(self) -> float | None:
        """The one number that this node of two inputs takes beside a tensor; None where it takes something else."""
        tensor = next((n for n in self.node.input if isinstance(self.walk.values[n], Value)), "")
        return self.number(self.node, tensor)

    def taken_with(self, node: Any) -> None:
        """Another node is converted together with this one, and gives what this one gives."""
        self.walk.done.add(node.output[0])
        self.walk.values[node.output[0]] = self.walk.values[self.node.output[0]]


@dataclass
class Walk:
    """The state of a walk through a file's graph."""

    file: ModelFile
    what: str
    folder: Any
    graph: Graph
    values: dict[str, Value | np.ndarray] = field(default_factory=dict)
    consumers: dict[str, list] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # first outputs of nodes that were converted with another
    notes: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)  # tensors that no converted node gives
    folded: int = 0
    _once: dict[tuple[str, str], str] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape of a value in ONNX's order, at a batch of one."""
        own = self.graph.shape(value.tensor)
        return tuple(1 if axis is None else own[axis] for axis in value.axes)

    def features(self, value: Value) -> Value:
        """A value (N, C, 1, …) as (N, C), where it is one; else as it is."""
        if value.axes[:2] == (0, 1) and set(value.axes[2:]) <= {None}:
            return Value(value.tensor, (0, 1), value.mixed)
        if value.axes[:2] == (0, 3) and math.prod(self.shape(value)[2:]) == 1:  # of a map of one pixel
            flat = self.once(value.tensor, "flat", lambda name: self.graph.flatten(name, value.tensor))
            return Value(flat, (0, 1))
        return value

    def once(self, tensor: str, what: str, make) -> str:
        """A tensor that is made of another one, the same for all that want it. make: of its name."""
        if (tensor, what) not in self._once:
            self._once[tensor, what] = make(self.unique(f"{tensor}.{what}"))
        return self._once[tensor, what]

    def unique(self, name: str) -> str:
        """A name that no node has yet, of what the file calls it."""
        name = re.sub(r"[^A-Za-z0-9_]+", ".", name).strip(".") or "node"
        found, i = name, 1
        while found in self._names or found in self.graph.tensors:
            i += 1
            found = f"{name}.{i}"
        self._names.add(found)
        return found

    def store(self, parameter: str, stored: Stored) -> None:
        """Give a parameter the value of a constant."""
        constant = self.values[stored.name]
        if isinstance(constant, Value):
            raise Unsupported(f"{quoted(stored.name)!r} depends on the input of the graph")
        if constant.dtype.kind == "f" and constant.dtype.itemsize < 4:
            constant = constant.astype(np.float32)
        array = np.asarray(stored.ours(constant))
        wanted = self.graph.parameters[parameter].shape
        self.graph.weights[parameter] = np.ascontiguousarray(array.reshape(wanted))
        computed = stored.name not in self.file.constants
        self.stored[parameter] = replace(stored, shape=constant.shape) if computed else stored

    def fold(self, node: Any) -> bool:
        """Compute a node that depends on no input; is it such a one?"""
        inputs = [self.values.get(name) for name in node.input if name]
        if node.op_type == "Shape" and isinstance(inputs[0], Value):
            shape = self.shape(inputs[0])
            first, last = (next((a.i for a in node.attribute if a.name == n), None) for n in ("start", "end"))
            self.values[node.output[0]] = np.array(shape[first:last], np.int64)
            return True
        if any(isinstance(value, Value) for value in inputs) or node.domain not in STANDARD:
            return False
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in node.input if name]
        feed = {name: np.asarray(self.values[name]) for name in names}
        if sum(a.size for a in feed.values()) > MOST_FOLDED or node.op_type in ("If", "Loop", "Scan"):
            raise Unsupported("it computes with constants, which are too many to be computed at once")
        takes, gives = (
            [helper.make_empty_tensor_value_info(n) for n in dict.fromkeys(of) if n] for of in (names, node.output)
        )
        graph = helper.make_graph([node], "constant", takes, gives)
        one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.file.opset)])
        outputs = ReferenceEvaluator(one).run(None, feed)
        for name, output in zip((n for n in node.output if n), outputs, strict=True):
            self.values[name] = np.asarray(output)
        return True


def readable(name: str, node: Any) -> str:
    """The path of modules in a name of PyTorch's exporter: `layer1.0.conv2` of `/layer1/layer1.0/conv2/Conv`.

    The operator at its end stays where the node has no weights.
    """
    parts: list[str] = []
    for part in filter(None, name.split("/")):
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    if len(parts) > 1 and len(node.input) > 1 and parts[-1].startswith(node.op_type):
        parts.pop()
    return ".".join(parts)
