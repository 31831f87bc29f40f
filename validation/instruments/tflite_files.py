"""Small TensorFlow Lite models, without TensorFlow: for tests, and to be damaged."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refimpl.formats.tflite import OPERATORS

TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}
OPTIONS = {  # operator → the number of the kind of its options
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 2, "MAX_POOL_2D": 5, "AVERAGE_POOL_2D": 5, "FULLY_CONNECTED": 8, "SOFTMAX": 9,
    "ADD": 11,
}  # fmt: skip
SAME, VALID = 0, 1


@dataclass(frozen=True)
class FlatScalar:
    """A field that is a number, of a kind of `struct`."""

    kind: str
    value: float


@dataclass(frozen=True)
class FlatVector:
    """A field of numbers."""

    kind: str
    values: Sequence[float]


def flatbuffer(root: Mapping, mark: bytes) -> bytes:
    """A FlatBuffer; a table is a dictionary of numbered fields: FlatScalar, FlatVector, table, or list of tables."""
    out = bytearray(4) + mark

    def put(raw: bytes) -> int:
        out.extend(bytes(-(len(out) + 4) % 8))  # behind the length of a vector its items are aligned
        out.extend(raw)
        return len(out) - len(raw)

    def point(at: int, value) -> None:
        there = write(value)
        out[at : at + 4] = struct.pack("<I", there - at)

    def write(value) -> int:
        if isinstance(value, FlatVector):
            return put(struct.pack(f"<I{len(value.values)}{value.kind}", len(value.values), *value.values))
        if isinstance(value, list):
            begin = put(struct.pack("<I", len(value)) + bytes(4 * len(value)))
            for i, item in enumerate(value):
                point(begin + 4 + 4 * i, item)
            return begin
        places, size = {}, 4
        for number, item in sorted(value.items()):
            width = struct.calcsize("<" + item.kind) if isinstance(item, FlatScalar) else 4
            size += -size % width
            places[number] = size
            size += width
        fields = [places.get(i, 0) for i in range(max(value, default=-1) + 1)]
        ways = put(struct.pack(f"<HH{len(fields)}H", 4 + 2 * len(fields), size, *fields))
        begin = put(bytes(4)) + 4  # a multiple of 8
        out[begin - 4 :] = b"\0" * 4 + bytes(size)
        out[begin : begin + 4] = struct.pack("<i", begin - ways)
        for number, item in value.items():
            if isinstance(item, FlatScalar):
                struct.pack_into("<" + item.kind, out, begin + places[number], item.value)
            else:
                point(begin + places[number], item)
        return begin

    point(0, root)
    return bytes(out)


class Lite:
    """A model that is put together: tensors, then the operators on them; both are known by their numbers."""

    def __init__(self) -> None:
        self.tensors: list[dict] = []
        self.buffers: list[dict] = [{}]
        self.operators: list[dict] = []
        self.codes: list[str] = []

    def tensor(self, shape, array=None, kind="float32", scales=(), zeros=(), axis=0) -> int:
        """A tensor, of these numbers where it is a constant; scales, zeros, axis: as it is quantized."""
        number = 0
        if array is not None:
            raw = np.ascontiguousarray(array)
            kind, number = raw.dtype.name, len(self.buffers)
            self.buffers.append({0: FlatVector("B", raw.tobytes())})
        made: dict = {0: FlatVector("i", shape), 1: FlatScalar("b", TYPES[kind]), 2: FlatScalar("I", number)}
        if len(scales):
            made[4] = {2: FlatVector("f", scales), 3: FlatVector("q", zeros), 6: FlatScalar("i", axis)}
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(self, name: str, reads: Sequence[int], shape, options: Mapping | None = None, **quantized) -> int:
        """An operator and the tensor that it writes."""
        if name not in self.codes:
            self.codes.append(name)
        made: dict = {0: FlatScalar("I", self.codes.index(name)), 1: FlatVector("i", reads)}
        made[2] = FlatVector("i", [self.tensor(shape, **quantized)])
        if options is not None:
            made |= {3: FlatScalar("B", OPTIONS.get(name, 0)), 4: dict(options)}
        self.operators.append(made)
        return len(self.tensors) - 1

    def file(self, begin: int, end: int) -> bytes:
        """The bytes of the model, from one tensor to another."""
        codes = [{0: FlatScalar("b", min(n, 127)), 3: FlatScalar("i", n)} for n in map(OPERATORS.index, self.codes)]
        graph = {
            0: self.tensors, 1: FlatVector("i", [begin]), 2: FlatVector("i", [end]), 3: self.operators,
        }  # fmt: skip
        return flatbuffer({0: FlatScalar("I", 3), 1: codes, 2: [graph], 4: self.buffers}, b"TFL3")


def small_lite(quantized: bool = False, last: str = "SOFTMAX") -> tuple[bytes, dict[str, np.ndarray]]:
    """A net of most operators for maps of 9x8x2, 3 classes, and its weights as our graph has them.

    quantized: of int8, each kernel's channels by their own scales. last: the operator at its end.
    """
    rng, net, held = np.random.default_rng(0), Lite(), {}
    x = begin = net.tensor([1, 9, 8, 2], kind="int8" if quantized else "float32", **_scale(quantized, 1 / 64))

    def constant(array: np.ndarray, axis: int) -> tuple[int, np.ndarray]:
        if not quantized:
            return net.tensor(array.shape, array.astype(np.float32)), array.astype(np.float32)
        scales = rng.uniform(0.01, 0.02, array.shape[axis]).astype(np.float32)
        side = scales.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
        whole = np.clip(np.round(array / side), -127, 127)
        kind = np.int8 if array.ndim > 1 else np.int32
        zeros = [0] * len(scales)
        number = net.tensor(array.shape, whole.astype(kind), scales=scales, zeros=zeros, axis=axis)
        return number, (side * whole).astype(np.float32)

    def weighted(name: str, count: int, shape, axis: int, order, out, options) -> int:
        w, kept = constant(rng.normal(0, 0.5, shape), axis)
        b, bias = constant(rng.normal(0, 0.5, shape[axis]), 0)
        label = f"{name.lower()}_{count}"
        held[f"{label}.w"], held[f"{label}.b"] = kept.transpose(order), bias
        return net.operator(name, [x, w, b], out, options, **_kind(quantized))

    byte, number = (lambda v: FlatScalar("b", v)), (lambda v: FlatScalar("i", v))
    relu6 = {0: byte(SAME), 1: number(2), 2: number(1), 3: byte(3)}
    x = weighted("CONV_2D", 1, (4, 3, 3, 2), 0, (1, 2, 3, 0), [1, 9, 4, 4], relu6)
    sides = net.tensor([4, 2], np.array([[0, 0], [0, 1], [1, 1], [0, 0]], np.int32))
    shortcut, x = x, net.operator("PAD", [x, sides], [1, 10, 6, 4], **_kind(quantized))
    plain = {0: byte(VALID), 1: number(1), 2: number(1), 3: number(1), 4: byte(0)}
    x = weighted("DEPTHWISE_CONV_2D", 1, (1, 2, 3, 4), 3, (1, 2, 0, 3), [1, 9, 4, 4], plain)
    x = net.operator("ADD", [x, shortcut], [1, 9, 4, 4], {0: byte(1)}, **_kind(quantized))
    pool = {0: byte(SAME), 1: number(2), 2: number(2), 3: number(2), 4: number(2)}
    x = net.operator("MAX_POOL_2D", [x], [1, 5, 2, 4], pool, **_kind(quantized))
    x = net.operator("AVERAGE_POOL_2D", [x], [1, 3, 1, 4], pool, **_kind(quantized))
    flat = net.tensor([2], np.array([1, 12], np.int32))
    x = net.operator("RESHAPE", [x, flat], [1, 12], **_kind(quantized))
    x = weighted("FULLY_CONNECTED", 1, (5, 12), 0, (1, 0), [1, 5], {0: byte(1)})
    x = weighted("FULLY_CONNECTED", 2, (3, 5), 0, (1, 0), [1, 3], {0: byte(0)})
    x = net.operator(last, [x], [1, 3], {0: FlatScalar("f", 1.0)}, **_kind(quantized))
    return net.file(begin, x), held


def _scale(quantized: bool, scale: float) -> dict:
    return {"scales": [scale], "zeros": [0]} if quantized else {}


def _kind(quantized: bool) -> dict:
    return {"kind": "int8"} | _scale(True, 1 / 16) if quantized else {}


__all__ = ["SAME", "VALID", "Lite", "small_lite"]
