"""The state of a walk through an ONNX graph, and a node of it as its converter sees it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...graph import Graph
from ...kernels.geometry import MOST_DIGITS
from ...storage.files import quoted
from . import model_file
from .layout import SAMPLES, Axis, Layout, Unshaped, of_axes, packed, paired, reshaped, row_major
from .model_file import STANDARD, ModelFile
from .value import MAP, NO_PAD, ROW, Mark, Sides, Stored, Told, Unsupported, Value

WEIGHT = ".weight"  # what PyTorch's names of weights end with: the rest is that of the layer
QUANTIZE = ("QuantizeLinear", "DequantizeLinear")
IN_TRAINING = "the file is one of training; batch norms and dropouts are taken, and written back, as in inference"
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
        if found.dtype.kind not in "iufb":
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
        return value.shape

    def map(self, i: int) -> str:
        """Our tensor (N, H, W, C) of input number i, which is (N, C, H, W), or (N, C, T) as a map of one row.

        Without the padding that it may have.
        """
        return self.walk.map(self.padded(i))

    def give_map(self, tensor: str, rank: int, output: int = 0) -> None:
        """Its output, the first or number `output`, is our map: (N, C, H, W), or (N, C, T) where `rank` is 3."""
        self.give(tensor, MAP if rank == 4 else ROW, output=output)

    def features(self, i: int) -> Value:
        """Input number i as (N, D), D elements in ONNX's order of ours: axes of length 1 are left out."""
        found = self.walk.features(self.tensor(i))
        if found is None:
            raise Unsupported(f"its input has the shape {self.tensor(i).shape}, features are (N, D)")
        return found

    def rows(self, i: int, axis: int = -1) -> Value:
        """Input number i so that `axis` is the last of our tensor: in its own order where it is, else copied."""
        return self.walk.rows(self.tensor(i), axis)

    def pair(self) -> tuple[str, str, Value]:
        """Its two inputs, of one shape, in the arrangement of the first, which is the third; Unsupported else."""
        a, b = self.tensor(0), self.tensor(1)
        if a.shape != b.shape:
            raise Unsupported(f"it takes shapes {a.shape} and {b.shape}")
        if (a.own, a.layout) == (b.own, b.layout):
            return a.tensor, b.tensor, a
        return a.tensor, self.walk.laid_as(b, a), a

    def store(self, parameter: str, place: int, axes: Sequence[int], node: Any = None, **more: Any) -> None:
        """Parameter `parameter` of our graph is input number `place`, a constant. node: whose, default this one's."""
        node = node or self.node
        self.walk.store(parameter, Stored(node.input[place], node.output[0], place, tuple(axes), **more))

    def give(
        self, tensor: str, axes: Sequence[int | Axis | None], pad: Sides = NO_PAD, output: int = 0
    ) -> None:  # fmt: skip
        """Its output, the first or number `output`, is our tensor, arranged so."""
        own = self.graph.shape(tensor)[1:]
        self.give_value(Value(tensor, own, of_axes(axes, own), pad), output)

    def give_value(self, value: Value, output: int = 0) -> None:
        """Its output, the first or number `output`."""
        self.walk.values[self.node.output[output]] = value

    def like(self, tensor: str, value: Value, output: int = 0, pad: Sides = NO_PAD) -> None:
        """Its output is our tensor, arranged as `value`, whose shape it has; pad: zeros that ours lacks."""
        self.give_value(replace(value, tensor=tensor, pad=pad), output)

    @property
    def free(self) -> str:
        """Its name, or one made of it where a node of ours has that already."""
        return self.walk.unique(self.name) if self.name in self.graph.tensors else self.name

    def given_value(self) -> Value:
        """What it gave as its first output so far."""
        found = self.walk.values[self.node.output[0]]
        assert isinstance(found, Value)
        return found

    def consumers(self, node: Any = None) -> list[Any]:
        """The nodes that read its first output, or another node's; the graph's own output is one, None."""
        return self.walk.consumers.get((node or self.node).output[0], [])

    def readers(self) -> list[Any]:
        """The nodes that read its first output, as `consumers` has them, through those that quantize or dequantize.

        Also through a Cast of what is quantized.
        """
        found, left = list[Any](), list(self.consumers())
        while left:
            node = left.pop(0)
            if node is not None and node.op_type in (*QUANTIZE, "Cast"):
                left += self.consumers(node)
            else:
                found.append(node)
        return found

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
    batch: int = 1  # of the file, where it says one
    values: dict[str, Value | np.ndarray] = field(default_factory=dict)
    consumers: dict[str, list] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # first outputs of nodes that were converted with another
    notes: list[str] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)  # node of ours → which whole numbers the file makes there
    lost: set[str] = field(default_factory=set)  # tensors that no converted node gives
    folded: int = 0
    _read: dict[str, list[str]] = field(default_factory=dict)  # constant of the file → parameters that are its array
    _once: dict[tuple[str, str], str] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def samples_first(self, value: Value) -> None:
        """Unsupported where the elements of a sample do not follow each other in a value."""
        before = [d for axis in value.layout for d in axis]
        if before and before[0] != SAMPLES:
            raise Unsupported(f"samples are not along the first axis of its input, {value.shape}")

    def laid(self, value: Value, order: Sequence[int], shape: tuple[int, ...]) -> str:
        """Our tensor (N, *shape) with the elements of a value in the order of its axes, the first slowest.

        order: of all axes but that of samples. The tensor itself where it is so, or the same memory where only its
        shape is another. Unsupported where samples are elsewhere, or a copy would need too many digits.
        """
        self.samples_first(value)
        digits = [d for axis in (0, *order) for d in value.layout[axis] if d != SAMPLES]
        return self.placed(value, packed(digits), shape)

    def laid_as(self, value: Value, other: Value) -> str:
        """Our tensor of a value with the elements where those of another one of the same shape are."""
        pairs = []
        for mine, theirs in zip(value.layout, other.layout, strict=True):
            try:
                pairs += paired([d for d in mine if d != SAMPLES], [d for d in theirs if d != SAMPLES])
            except Unshaped as e:
                raise Unsupported(str(e)) from None
        pairs.sort(key=lambda p: -p[2])
        return self.placed(value, packed([(length, step) for length, step, _ in pairs]), other.own)

    def placed(self, value: Value, digits: Axis, shape: tuple[int, ...]) -> str:
        """Our tensor (N, *shape) with the elements of a value in the order of digits of its tensor."""
        graph, x = self.graph, value.tensor
        if len(digits) < 2:  # in their order
            if value.own == shape:
                return x
            if len(shape) == 1:
                return self.once(x, "flat", lambda name: graph.flatten(name, x))
            if shape == (1, 1, *value.own):
                return self.once(x, "map", lambda name: graph.as_map(name, x))
            return self.once(x, f"shape{shape}", lambda name: graph.reshape(name, x, (shape[0], shape[1])))
        lengths, steps = zip(*digits, strict=True)
        if len(digits) > MOST_DIGITS:
            raise Unsupported(f"its input is arranged as {value.axes}, too many parts to be put in order")
        size = (1, 1) if len(shape) == 1 else (shape[0], shape[1])
        found = self.once(
            x, f"order{digits}{size}", lambda name: graph.rearrange(name, x, size, lengths, steps)
        )  # fmt: skip
        return found if len(shape) > 1 else self.once(found, "flat", lambda name: graph.flatten(name, found))

    def rows(self, value: Value, axis: int = -1) -> Value:
        """A value so that `axis` is the last of our tensor: in its own order where it is, else copied."""
        axis %= len(value.layout)
        length = value.shape[axis]
        if SAMPLES in value.layout[axis]:
            raise Unsupported("it works along samples")
        if packed(value.layout[axis]) == packed([(length, 1)]) and value.own[-1] == length:
            return value
        order = (*(n for n in range(len(value.layout)) if n != axis), axis)
        own = (1, math.prod(value.shape) // length, length)
        digits = [d for n in order for d in value.layout[n] if d != SAMPLES]
        tensor = self.placed(value, packed(digits), own)
        return Value(tensor, own, self.in_order(value.layout, row_major(value.shape), order))

    def in_order(self, layout: Layout, digits: Axis, order: Sequence[int] = ()) -> Layout:
        """The layout of a tensor whose elements are in the order of the axes, or in `order` of them.

        layout: says where samples stand; digits: a digit for each axis, as `row_major` of their lengths.
        """
        lengths, steps = [n for n, _ in digits], [0] * len(digits)
        step = math.prod(lengths)
        for axis in order or range(len(digits)):
            step //= lengths[axis]
            steps[axis] = step
        found: list[Axis] = []
        for own, n, step in zip(layout, lengths, steps, strict=True):
            before: Axis = own[: own.index(SAMPLES)] if SAMPLES in own else ()
            slow = math.prod(length for length, _ in before)  # of this axis, what counts slower than samples
            samples = [SAMPLES] * (SAMPLES in own)
            found.append(packed([(slow, n // slow * step), *samples, (n // slow, step)]))
        return tuple(found)

    def split(self, value: Value, shape: Sequence[int]) -> Value:
        """A value under another shape; Unsupported where it cuts across axes."""
        try:
            return replace(value, layout=reshaped(value.layout, shape))
        except Unshaped as e:
            raise Unsupported(str(e)) from None

    def map(self, value: Value) -> str:
        """Our tensor (N, H, W, C) of a value (N, C, H, W), or (N, C, T) as a map of one row; Unsupported else."""
        rank = len(value.layout)
        order = {4: (2, 3, 1), 3: (2, 1)}.get(rank)
        if order is None:
            dimensions = " (of maps of three dimensions, which are not run)" if rank == 5 else ""
            raise Unsupported(f"its input has {rank} axes{dimensions}, maps have 4 (N, C, H, W), or 3 (N, C, T)")
        if value.shape[0] != 1:
            raise Unsupported(f"its input has the shape {value.shape}, whose first axis is more than samples")
        sides = (*(1,) * (4 - rank), *(value.shape[axis] for axis in order))
        return self.laid(value, order, sides)

    def grouped(self, value: Value, flags: Sequence[bool]) -> tuple[Value, list[bool]]:
        """A value as a tensor of three axes in ONNX's order, each of neighbours with one flag, and their flags.

        Unsupported where there are more than three groups of them.
        """
        groups: list[tuple[bool, int]] = []
        for length, flag in zip(value.shape, flags, strict=True):
            if groups and (groups[-1][0] == flag or length == 1):
                groups[-1] = (groups[-1][0], groups[-1][1] * length)
            elif length > 1:
                groups.append((flag, length))
        if len(groups) > 3:
            raise Unsupported(f"its input {value.shape} would be a tensor of {len(groups)} axes, three are run")
        groups = [(False, 1)] * (3 - len(groups)) + groups
        own = tuple(length for _, length in groups)
        tensor = self.laid(value, range(1, len(value.layout)), own)
        layout = self.in_order(value.layout, row_major(value.shape))
        return Value(tensor, own, layout), [flag for flag, _ in groups]

    def pixels(self, value: Value) -> Value:
        """A value whose tensor (1, B, C) has its elements in ONNX's order, as (B, C, 1)."""
        _, rows, columns = value.own
        digits = ((math.prod(value.own), 1),)
        return replace(value, tensor=self.placed(value, digits, (rows, columns, 1)), own=(rows, columns, 1))

    def features(self, value: Value) -> Value | None:
        """A value (N, D, 1, …) as (N, D); None where it is none."""
        first, *rest = value.layout
        long = [axis for axis in rest if axis]
        if first != (SAMPLES,) or len(long) > 1 or long and not value.layout[1]:
            return None
        size = math.prod(value.own)
        flat = self.placed(value, ((size, 1),), (size,))
        return Value(flat, (size,), ((SAMPLES,), long[0] if long else ()))

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

    def note(self, text: str) -> None:
        """Say something of the whole file, once."""
        if text not in self.notes:
            self.notes.append(text)

    def store(self, parameter: str, stored: Stored) -> None:
        """Give a parameter the value of a constant."""
        stored = self.origin(stored)
        constant = self.values[stored.name]
        if isinstance(constant, Value):
            raise Unsupported(f"{quoted(stored.name)!r} depends on the input of the graph")
        floats = constant.dtype.kind == "f"
        if not floats or constant.dtype.itemsize < 4:
            constant = constant.astype(np.float32)
        array = np.asarray(stored.ours(constant))
        wanted = self.graph.parameters[parameter].shape
        self.graph.weights[parameter] = np.ascontiguousarray(array.reshape(wanted))
        computed = stored.name not in self.file.constants
        self.stored[parameter] = replace(stored, shape=constant.shape) if computed else stored
        if floats:
            self.shared(parameter, constant)

    @cached_property
    def repeats(self) -> dict[str, Any]:
        """The nodes that repeat a tensor, by what they give."""
        return {node.output[0]: node for node in self.file.graph.node if node.op_type in ("Expand", "Tile")}

    def origin(self, stored: Stored) -> Stored:
        """Where a file has a constant before it repeats it for each sample, as a class token: it goes on doing so."""
        while (node := self.repeats.get(stored.name)) is not None:
            one, repeated = self.values[node.input[0]], self.values[stored.name]
            if isinstance(one, Value) or isinstance(repeated, Value) or not np.array_equal(one, repeated):
                break  # it is repeated at a batch of one too
            stored = replace(stored, name=node.input[0], node=node.output[0], place=0)
        return stored

    def shared(self, parameter: str, constant: np.ndarray) -> None:
        """Let a parameter be that of an earlier node where both are one constant of the file, read alike.

        Exporters merge arrays that are equal by chance, as biases of zeros: a constant of one number again and again is
        one for the nodes alone that share another one.
        """
        graph, stored = self.graph, self.stored[parameter]
        name, _, local = parameter.rpartition(".")
        own, root = graph.node(name), self.file.source(stored.name)
        even = bool(constant.size == 0 or (constant == constant.reshape(-1)[0]).all())
        others = self._read.setdefault(root, [])
        for other in others:
            earlier = graph.node(other.rpartition(".")[0])
            if even and not set(own.params.values()).intersection(earlier.params.values()):
                continue
            theirs = self.stored[other]
            if own.op == earlier.op and other.endswith(f".{local}") and stored.read == theirs.read:
                graph.share(parameter, other)
                del graph.weights[parameter], self.stored[parameter]
                self.stored[other] = replace(theirs, also=(*theirs.also, (stored.node, stored.place)))
                return
        if others and not even:
            self.notes.append(
                f"{quoted(root)} is read in different ways, by {others[0].rpartition('.')[0]} and {name}: each has "
                "weights of its own from here on"
            )
        others.append(parameter)

    def fold(self, node: Any) -> bool:
        """Compute a node that depends on no input; is it such a one?"""
        inputs = [self.values.get(name) for name in node.input if name]
        if node.op_type == "Shape" and isinstance(inputs[0], Value):
            shape = inputs[0].shape
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
        # the evaluator has no earlier form of these two, whose meaning did not change
        opset = max(self.file.opset, 19) if node.op_type in QUANTIZE else self.file.opset
        one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
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
