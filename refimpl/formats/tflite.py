"""A TensorFlow Lite model as a graph of floats (schema version 3; TensorFlow is not needed, and nothing is run).

    convolution            (K, R, S, C)  →  (R, S, C, K)
    depthwise convolution  (1, R, S, K)  →  (R, S, 1, K), with as many groups as its input has channels
    fully connected        (K, D)        →  (D, K)

Maps are (N, H, W, C) there as here, and "same" pads alike. Of a quantized model the weights are dequantized, each
channel by its own scale, w = scale·(q − zero point), and biases by theirs: what the integers of the maps are rounded to
is left out. A softmax at the end is left out too: a loss takes scores.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..graph import INPUT, Graph
from ..kernels.passes import ShapeError
from ..models import MOST_SIDE
from ..storage import files
from ..storage.checkpoint import CheckpointError
from ..surgery.quantize import MapScale
from .flatbuffer import FlatBuffer, FlatTable
from .whole_net import WholeArray, checked_scale, map_scale

SUFFIX, MARK, VERSION = ".tflite", b"TFL3", 3
TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 7: "<i2", 9: "i1"}  # of tensors that are numbers
MOST_NODES = 2_000  # that a model may have
MOST_TIMES = 16  # the bytes of a file that its arrays may take: those of int8 become four of floats
WHOLE = (2, 4)  # types of tensors that shapes are computed with
UINT8, SAME = 3, 0
ACTIVATIONS = {1: "relu", 2: "clip", 3: "relu6", 4: "tanh"}  # that another operator carries
# The numbers of the operators are their places here.
OPERATORS = """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP
FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION
LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH
CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER BATCH_TO_SPACE_ND
SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN
EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2
GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG
SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT
UNPACK REDUCE_MIN FLOOR_DIV REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU
SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE
MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH""".split()
QUANTIZED = "its weights were quantized: it trains in floats, which are not rounded as its own integers are"
DAMAGED = "is no TensorFlow Lite model, or is damaged"
CONVERT = "convert the model to ONNX (the package tf2onnx takes such files) and give that"


class Unconverted(CheckpointError):
    """Operators of a model have no form here. counts: how many nodes there are of each operator; missing: which."""

    def __init__(self, message: str, counts: Mapping[str, int], missing: Mapping[str, str]):
        super().__init__(message)
        self.counts, self.missing = counts, missing


class _Without(Exception):
    """A node cannot be converted, and why."""


@dataclass(frozen=True, eq=False)
class LiteModel:
    """A model that was read. graph: with its weights; counts: nodes of each operator; told: what was done, in words.

    marks: node → what whole numbers the file makes there, where it was read with marks. taken: parameter → the tensor
    that it is from, and its axes in our order. arrays: of these the quantized ones. called: node → the operator of the
    file. whole_input: does it take whole numbers?
    """

    graph: Graph
    counts: Mapping[str, int]
    told: tuple[str, ...]
    marks: Mapping[str, MapScale] = field(default_factory=dict)
    taken: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    arrays: Mapping[str, WholeArray] = field(default_factory=dict)
    called: Mapping[str, str] = field(default_factory=dict)
    whole_input: bool = False


@dataclass(eq=False)
class LiteReading:
    """A model on its way into a graph: its tensors, and which of them the graph has under which name."""

    subgraph: FlatTable
    buffers: list[FlatTable]
    graph: Graph
    tensors: list[FlatTable]
    codes: list[FlatTable]
    made: dict[int, str] = field(default_factory=dict)
    constants: dict[int, np.ndarray] = field(default_factory=dict)
    padding: dict[int, tuple] = field(default_factory=dict)  # tensor → what a PAD before it adds
    counts: Counter = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    bytes_taken: int = 0  # of the constants
    with_marks: bool = False
    marks: dict[str, MapScale] = field(default_factory=dict)
    taken: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    called: dict[str, str] = field(default_factory=dict)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.tensors[tensor].numbers(0, "i")

    def scales(self, tensor: int) -> tuple[np.ndarray, np.ndarray, int] | None:
        """Scales, zero points and their axis of a tensor; None where it is not quantized."""
        quantized = self.tensors[tensor].table(4)
        scales = quantized.numbers(2, "f") if quantized else ()
        if not quantized or not scales:
            return None
        zeros = quantized.numbers(3, "q") or (0,) * len(scales)
        return np.array(scales, np.float64), np.array(zeros, np.float64), quantized.number(6, "i")

    def stored(self, tensor: int) -> np.ndarray | None:
        """The numbers of a tensor as the file has them; None where it is no constant."""
        at = self.place(tensor)
        return None if at is None else np.frombuffer(self.tensors[tensor].file.raw, *at).reshape(self.shape(tensor))

    def place(self, tensor: int) -> tuple[np.dtype, int, int] | None:
        """Where the numbers of a constant lie in the file: their dtype, how many there are, and the first byte."""
        of = self.tensors[tensor]
        number = of.number(2, "I")
        begin, count = self.buffers[number].span(0, 1) if number < len(self.buffers) else (0, 0)
        kind = np.dtype(TYPES[of.number(1, "b")]) if of.number(1, "b") in TYPES else None
        if not count or kind is None:
            return None
        shape = self.shape(tensor)
        if min(shape, default=1) < 0 or int(np.prod(shape, dtype=object)) * kind.itemsize != count:
            raise ValueError(f"it holds an array of {files.quoted(shape)} with {count} bytes")
        return kind, count // kind.itemsize, begin

    def each(self, tensor: int, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scales and zero points of a quantized constant, so that they fit its axes."""
        scaled = self.scales(tensor)
        assert scaled is not None
        scales, zeros, axis = scaled
        checked_scale(scales, f"a scale of its array of {files.quoted(found.shape)}")
        if len(scales) > 1:
            if not 0 <= axis < found.ndim or found.shape[axis] != len(scales) or len(zeros) != len(scales):
                raise ValueError("it holds scales that are not those of an axis")
            scales, zeros = (v.reshape([-1 if i == axis else 1 for i in range(found.ndim)]) for v in (scales, zeros))
        return scales, zeros

    def whole(self, tensor: int, axes: tuple[int, ...], shape: tuple[int, ...]) -> WholeArray | None:
        """The whole numbers of a constant in our layout; None where it is one of floats."""
        found = self.stored(tensor)
        if found is None or found.dtype.kind not in "iu" or self.scales(tensor) is None:
            return None
        scales, zeros = self.each(tensor, found)
        q, scale = (v.transpose(axes).reshape(shape) for v in (
            found.astype(np.int64) - zeros.astype(np.int64), np.broadcast_to(scales, found.shape)
        ))  # fmt: skip
        each = scale.reshape(-1, shape[-1])
        if (each != each[:1]).any():
            raise ValueError("it holds weights whose scales are not those of output channels")
        return WholeArray(q, each[0].astype(np.float32))

    def mark(self, tensor: int, label: str) -> None:
        """Let a node stand where the file makes whole numbers of a map that it has as `tensor`."""
        scaled, name = self.scales(tensor), self.made[tensor]
        kind = TYPES.get(self.tensors[tensor].number(1, "b"), "")
        if not self.with_marks or scaled is None or not name or np.dtype(kind or "f4").kind not in "iu":
            return
        (scales, zeros, _), dtype = scaled, np.dtype(kind)
        if not np.iinfo(dtype).min <= zeros.min() <= zeros.max() <= np.iinfo(dtype).max:
            raise ValueError(f"the map {label} has a zero point of {zeros.min():g}, which is none of {dtype}")
        held = map_scale(scales, zeros.astype(dtype), f"the map {label}")
        self.made[tensor] = self.graph.clip(
            f"{label}.steps", name, *(held.value * (e - held.zero) for e in (-128, 127))
        )
        self.marks[self.made[tensor]] = held

    def constant(self, tensor: int) -> np.ndarray | None:
        """The numbers of a tensor of the file, dequantized; None where it is none."""
        if tensor in self.constants:
            return self.constants[tensor]
        found = self.stored(tensor)
        if found is None:
            return None
        if self.scales(tensor):
            scales, zeros = self.each(tensor, found)
            found = (scales * (found - zeros)).astype(np.float32)
            if QUANTIZED not in self.told:
                self.told.append(QUANTIZED)
        self.bytes_taken += found.nbytes
        if self.bytes_taken > MOST_TIMES * len(self.subgraph.file.raw):
            raise ValueError(f"its arrays take more than {MOST_TIMES} times its bytes")
        self.constants[tensor] = found
        return found

    def weights(self, tensor: int) -> np.ndarray:
        """The constant that an operator needs as float32."""
        found = self.constant(tensor)
        if found is None:
            raise _Without("its weights are computed")
        return found.astype(np.float32)

    def given(self, tensor: int) -> str:
        """What the graph calls a tensor that an operator reads."""
        if tensor in self.padding:
            raise _Without("a PAD stands before it")
        if tensor not in self.made:
            raise _Without("it reads a constant, or what is missing")
        return self.made[tensor]


def read_tflite(path: str | os.PathLike, what: str, marks: bool = False) -> LiteModel:
    """The model of a file; CheckpointError in one sentence where it cannot be used. what: how messages call the file.

    marks: shall a node stand where a map becomes whole numbers? Unconverted where operators have no form here.
    """
    net, ends = begun(path, what)
    net.with_marks = marks
    with files.reading(f"the model {what}", CheckpointError, DAMAGED):
        return _converted(net, *ends, what)


def begun(path: str | os.PathLike, what: str) -> tuple[LiteReading, tuple[int, int]]:
    """A model before anything of it is converted, and its input and output; CheckpointError as `read_tflite`."""
    raw = files.read_bytes(path, f"the model {what}", CheckpointError)
    with files.reading(f"the model {what}", CheckpointError, DAMAGED):
        if raw[4:8] != MARK:
            raise ValueError("it does not begin as such a file")
        root = FlatBuffer(raw).root()
        if root.number(0, "I") != VERSION:
            raise ValueError(f"its schema has version {root.number(0, 'I')}, and {VERSION} is known")
        subgraph = root.tables(2)[0]
        inputs, outputs, tensors = subgraph.numbers(1, "i"), subgraph.numbers(2, "i"), subgraph.tables(0)
        if len(inputs) != 1 or len(outputs) != 1:
            raise CheckpointError(
                f"{what} has {len(inputs)} inputs and {len(outputs)} outputs, and one of each is read"
            )
        n, *sides = tensors[inputs[0]].numbers(0, "i") or (0,)
        if n not in (1, -1) or len(sides) != 3 or not 0 < min(sides) <= max(sides) <= MOST_SIDE:
            raise CheckpointError(
                f"{what} takes {files.quoted((n, *sides))}, and maps (1, rows, columns, channels) are read"
            )
        graph = Graph(files.quoted(os.path.splitext(os.path.basename(what))[0]), (sides[0], sides[1]), sides[2])
        codes = root.tables(1)
        return LiteReading(subgraph, root.tables(4), graph, tensors, codes, {inputs[0]: INPUT}), (inputs[0], outputs[0])


def _converted(net: LiteReading, begin: int, end: int, what: str) -> LiteModel:
    graph = net.graph
    _take_pixels(net, begin)
    net.mark(begin, INPUT)
    whole_input = INPUT != net.made[begin]
    missing: dict[str, str] = {}
    operators = net.subgraph.tables(3)
    if len(operators) > MOST_NODES:
        raise CheckpointError(f"{what} has {len(operators):,} nodes, and at most {MOST_NODES:,} are read")
    for operator in operators:
        _convert(net, operator, net.codes, missing, end)
    if missing:
        names = ", ".join(f"{op} ({why})" for op, why in missing.items())
        raise Unconverted(f"{what} cannot be imported: there is no way yet for {names}; {CONVERT}", net.counts, missing)
    graph.outputs = (net.given(end),)
    shapes = {name: graph.parameters[name].shape for name in net.taken}
    arrays = {name: net.whole(tensor, axes, shapes[name]) for name, (tensor, axes) in net.taken.items()}
    found = {name: array for name, array in arrays.items() if array is not None}
    return LiteModel(graph, net.counts, tuple(net.told), net.marks, net.taken, found, net.called, whole_input)


def _take_pixels(net: LiteReading, tensor: int) -> None:
    """Let the ends of a quantized input be what stands for pixels of 0 and of 255."""
    if scaled := net.scales(tensor):
        (scale, *_), (zero, *_), _ = scaled
        ends = (0, 255) if net.tensors[tensor].number(1, "b") == UINT8 else (-128, 127)
        net.graph.pixels = (float(scale * (ends[0] - zero)), float(scale * (ends[1] - zero)))


def _convert(net: LiteReading, operator: FlatTable, codes: list[FlatTable], missing: dict[str, str], end: int) -> None:
    """Add an operator to the graph, or note why not."""
    code = codes[operator.number(0, "I")]
    number = max(code.number(0, "b"), code.number(3, "i"))
    name = OPERATORS[number] if number < len(OPERATORS) else f"operator {number}"
    net.counts[name] += 1
    reads, writes = operator.numbers(1, "i"), operator.numbers(2, "i")
    if len(writes) == 1 and net.tensors[writes[0]].number(1, "b") in WHOLE and name != "CONV_2D":
        return  # it computes a shape, which its reader has
    options = operator.table(4) or FlatTable(FlatBuffer(bytes(8) + b"\4\0\4\0\4\0\0\0"), 12)
    try:
        if name not in CONVERTERS:
            raise _Without("no converter")
        if name == "SOFTMAX":
            if writes[0] != end and not _last(net, writes[0], end):
                raise _Without("within the net")
            net.told.append("the net ends with SOFTMAX; it trains, and gives scores, before it")
        label, before = f"{name.lower()}_{net.counts[name]}", len(net.graph.nodes)
        net.made[writes[0]] = CONVERTERS[name](net, label, options, reads, writes[0])
        net.called |= {node.name: name for node in net.graph.nodes[before:]}
        if name != "SOFTMAX":
            net.mark(writes[0], label)
    except _Without as e:
        if not any(t in net.made or t in net.padding or net.constant(t) is not None for t in reads[:1]):
            return  # what is missing before it is told
        missing.setdefault(name, str(e))
    except ShapeError as e:
        missing.setdefault(name, str(e))


def _last(net: LiteReading, tensor: int, end: int) -> bool:
    """Is a tensor only dequantized before the end?"""
    after = [op for op in net.subgraph.tables(3) if tensor in op.numbers(1, "i")]
    return len(after) == 1 and after[0].numbers(2, "i") == (end,)


def _named(net: LiteReading, label: str, reads: Sequence[int], axes: tuple[int, ...]) -> None:
    """The weights and the bias of a layer, its inputs 1 and 2. axes: of the weights in our order."""
    for local, tensor, order in (("w", reads[1], axes), ("b", reads[-1], (0,))):
        if (parameter := net.graph.node(label).params.get(local)) is not None:
            array = net.weights(tensor).transpose(order)
            net.graph.weights[parameter] = np.ascontiguousarray(array, np.float32)
            net.taken[parameter] = tensor, order


def _activated(net: LiteReading, label: str, x: str, kind: int) -> str:
    if kind == 0:
        return x
    if kind not in ACTIVATIONS:
        raise _Without("an activation that is not known")
    name, bounds = ACTIVATIONS[kind], (-1.0, 1.0) if ACTIVATIONS[kind] == "clip" else ()
    return getattr(net.graph, name)(f"{label}.{name}", x, *bounds)


def _conv(net: LiteReading, label: str, options: FlatTable, reads, _, depthwise: bool = False) -> str:
    w = net.weights(reads[1])
    pad: tuple | str = "same" if options.number(0, "b") == SAME else "valid"
    x = reads[0]
    if x in net.padding:
        if pad == "same":
            raise _Without("a PAD stands before one that pads itself")
        x, pad = net.padding[x]
    name = net.given(x)
    if w.ndim != 4 or len(net.graph.shape(name)) != 4:
        raise _Without("its kernel has not four axes")
    axes = (1, 2, 0, 3) if depthwise else (1, 2, 3, 0)
    w = w.transpose(axes)
    depth = net.graph.shape(name)[3]
    groups = depth if depthwise else depth // max(1, w.shape[2])
    at = (5, 6, 4) if depthwise else (4, 5, 3)  # fields of the dilation's columns and rows, and of the activation
    stride = (options.number(2, "i"), options.number(1, "i"))
    dilation = (options.number(at[1], "i", 1), options.number(at[0], "i", 1))
    biased = len(reads) > 2 and reads[2] >= 0
    net.graph.conv2d(label, name, w.shape[3], w.shape[:2], stride, pad, dilation, groups, biased)
    if net.graph.parameters[net.graph.node(label).params["w"]].shape != w.shape:
        raise _Without("its kernel has other channels than its input")
    _named(net, label, reads, axes)
    return _activated(net, label, label, options.number(at[2], "b"))


def _depthwise(net: LiteReading, label: str, options: FlatTable, reads, writes: int) -> str:
    return _conv(net, label, options, reads, writes, True)


def _linear(net: LiteReading, label: str, options: FlatTable, reads, _) -> str:
    w, x = net.weights(reads[1]), net.given(reads[0])
    if len(net.graph.shape(x)) > 2:
        x = net.graph.flatten(f"{label}.flatten", x)
    biased = len(reads) > 2 and reads[2] >= 0
    if w.ndim != 2 or w.shape[1] != net.graph.shape(x)[-1] or options.number(1, "b"):
        raise _Without("its weights are kept in another way")
    net.graph.linear(label, x, w.shape[0], biased)
    _named(net, label, reads, (1, 0))
    return _activated(net, label, label, options.number(0, "b"))


def _pool(net: LiteReading, label: str, options: FlatTable, reads, _, mean: bool = False) -> str:
    x, graph = net.given(reads[0]), net.graph
    window, stride = ((options.number(i, "i"), options.number(j, "i")) for i, j in ((4, 3), (2, 1)))
    pad = "same" if options.number(0, "b") == SAME else "valid"
    if mean and window == graph.shape(x)[1:3] and pad == "valid":
        made = graph.as_map(f"{label}.map", graph.global_avg_pool(label, x))
    elif mean:
        made = graph.avg_pool(label, x, window, stride, pad, count_include_pad=False)
    else:
        made = graph.max_pool(label, x, window, stride, pad)
    return _activated(net, label, made, options.number(5, "b"))


def _avg_pool(net: LiteReading, label: str, options: FlatTable, reads, writes: int) -> str:
    return _pool(net, label, options, reads, writes, True)


def _mean(net: LiteReading, label: str, options: FlatTable, reads, _) -> str:
    x, axes = net.given(reads[0]), net.constant(reads[1])
    rank = len(net.graph.shape(x))
    if axes is None or rank != 4 or sorted(int(a) % rank for a in axes.reshape(-1)) != [1, 2]:
        raise _Without("of other axes than rows and columns")
    made = net.graph.global_avg_pool(label, x)
    return net.graph.as_map(f"{label}.map", made) if options.number(0, "b") else made


def _two(method: str) -> Callable:
    """A converter of an operator on two tensors of one shape."""

    def convert(net: LiteReading, label: str, options: FlatTable, reads, _) -> str:
        a, b = (net.given(t) for t in reads)
        if net.graph.shape(a) != net.graph.shape(b):
            raise _Without("of two shapes")
        return _activated(net, label, getattr(net.graph, method)(label, a, b), options.number(0, "b"))

    return convert


def _concat(net: LiteReading, label: str, options: FlatTable, reads, _) -> str:
    inputs = [net.given(t) for t in reads]
    if options.number(0, "i") % len(net.graph.shape(inputs[0])) != len(net.graph.shape(inputs[0])) - 1:
        raise _Without("along another axis than the channels")
    return _activated(net, label, net.graph.concat(label, *inputs), options.number(1, "b"))


def _one(method: str) -> Callable:
    """A converter of an operator on one tensor."""
    return lambda net, label, options, reads, _: getattr(net.graph, method)(label, net.given(reads[0]))


def _reshape(net: LiteReading, label: str, options: FlatTable, reads, writes: int) -> str:
    x = net.given(reads[0])
    has, wants = net.graph.shape(x), net.shape(writes)
    if tuple(wants[1:]) == has[1:]:
        return x
    if len(wants) == 2 and wants[1] in (-1, int(np.prod(has[1:]))):
        return net.graph.flatten(label, x)
    raise _Without(f"to {files.quoted(wants)}")


def _pad(net: LiteReading, label: str, options: FlatTable, reads, writes: int) -> str:
    sides = net.constant(reads[1])
    net.given(reads[0])
    if sides is None or sides.shape != (4, 2) or sides[[0, 3]].any() or sides.min() < 0:
        raise _Without("of other axes than rows and columns")
    rows, columns = (tuple(int(n) for n in side) for side in sides[1:3])
    net.padding[writes] = reads[0], (rows, columns)
    return net.given(reads[0])


def _same(net: LiteReading, label: str, options: FlatTable, reads, writes: int) -> str:
    """What changes the numbers' kind only."""
    if (found := net.constant(reads[0])) is not None and reads[0] not in net.made:
        net.constants[writes] = found
        return ""
    if net.given(reads[0]) == INPUT:
        _take_pixels(net, writes)
    return net.given(reads[0])


CONVERTERS: dict[str, Callable] = {
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _linear, "ADD": _two("add"),
    "MUL": _two("mul"), "AVERAGE_POOL_2D": _avg_pool, "MAX_POOL_2D": _pool, "MEAN": _mean, "RESHAPE": _reshape,
    "SQUEEZE": _reshape, "SOFTMAX": _same, "PAD": _pad, "RELU": _one("relu"), "RELU6": _one("relu6"),
    "LOGISTIC": _one("sigmoid"), "TANH": _one("tanh"), "HARD_SWISH": _one("hard_swish"), "CONCATENATION": _concat,
    "QUANTIZE": _same, "DEQUANTIZE": _same,
}  # fmt: skip

__all__ = ["SUFFIX", "LiteModel", "LiteReading", "Unconverted", "begun", "read_tflite"]
