"""A quantized ONNX model as a net of whole numbers, with the file's own scales and zero points, and back.

QuantizeLinear and DequantizeLinear stand around what runs in integers, as onnxruntime's quantizer and PyTorch's
exporters write them. The walk that reads a model of floats reads these too, and leaves a clip where a map becomes whole
numbers (`operators.quantization`); weights are looked up behind the DequantizeLinear that made floats of them.

`rewritten` puts weights back: into the integers of the same nodes, by the same scales. Readings:
  [ours] Weights of 16 bits, as forward gradients train them, and those of a new classifier become 8 bits: by the file's
         scale where they fit, else by the least one that holds them.
  [ours] Scores leave the file in floats, as they leave our nets: the pair of nodes that rounds them to 8 bits, by a
         range that the scores had before, is left out.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...data.pixels import Level
from ...graph import Graph
from ...kernels.passes import ShapeError
from ...storage import files
from ...storage.checkpoint import CheckpointError
from ...storage.files import quoted
from ...surgery.classifier import changed
from ..whole_net import QuantizedNet, WholeArray, checked_scale, in_8_bits, in_32_bits, map_scale, real, whole_net
from . import model_file
from .exporting import Placed, as_stored, finished
from .importing import imported, lacking
from .model_file import ModelFile
from .value import Imported, Stored
from .walk import QUANTIZE

PASSED = ("Identity",)  # operators through which weights are looked up, beside Transpose


@dataclass(frozen=True, eq=False)
class Dequantized:
    """A constant that a node makes floats of: q·scale without its zero point.

    node: that DequantizeLinear; q, zero: as the file has them; scale: float64, one or one along `axis`; order: of its
    axes in what the layer reads.
    """

    node: Any
    q: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    axis: int
    order: tuple[int, ...]

    def along(self, values: np.ndarray) -> np.ndarray:
        """Scales or zero points, one for each element of q."""
        if values.size == 1:
            return np.broadcast_to(values.reshape(-1)[0], self.q.shape)
        if self.q.ndim == 0 or values.shape != self.q.shape[self.axis : self.axis + 1]:
            raise ValueError(f"it has {values.size} scales or zero points along axis {self.axis} of {self.q.shape}")
        sides = [-1 if i == self.axis else 1 for i in range(self.q.ndim)]
        return np.broadcast_to(values.reshape(sides), self.q.shape)


def holds_quantized(path: str | os.PathLike) -> bool:
    """Does an ONNX model make whole numbers of its maps? CheckpointError where it cannot be read."""
    return any(node.op_type in QUANTIZE for node in model_file.read(path).graph.node)


def load_whole(
    path: str | os.PathLike, classes: int | None = None, size: tuple[int, int] | None = None,
    pixels: tuple[Level, Level] | None = None,
) -> Graph:  # fmt: skip
    """The net of a quantized ONNX model in whole numbers, with its weights; input (N, H, W, C) floats.

    classes: of a new classifier of floats (`whole_net.finished`), default the file's own; size: (H, W), default the
    file's own; pixels: what it takes for them. CheckpointError in one sentence where it cannot be read, and
    `whole_net.WithoutForm` where operators have no form in whole numbers.
    """
    found, what = imported(path, size), f"the ONNX model {path}"
    graph, end = found.graph, found.end
    if graph is None or end is None:
        raise CheckpointError(lacking(found))
    if end.axes != (0, 1) or graph.size is None:
        raise CheckpointError(f"{what} takes no maps, or gives no score for each class, (N, K)")
    try:
        resized = changed(graph, None, size, None, str(path))
    except ShapeError as e:
        raise CheckpointError(f"{path} cannot take maps of {'x'.join(map(str, size or ()))}: {e}") from None
    resized.weights = graph.weights
    with files.reading(what, CheckpointError, "cannot be one of whole numbers"):
        net, places = described(found, resized)
    new = whole_net(net, what, classes)
    new.stored = {name: asdict(at) for name, at in places.items() if name in new.parameters}
    new.origin = f"pre-trained, of the ONNX model {os.path.basename(path)}"
    if pixels is not None:
        new.pixels = pixels
    return new


def described(found: Imported, graph: Graph) -> tuple[QuantizedNet, dict[str, Stored]]:
    """What is known of a model, and where its whole numbers are in the file; ValueError where scales are none."""
    marks = {name: map_scale(np.array(m.scale.value), np.array(m.scale.zero, m.dtype), f"the map at {name}")
             for name, m in found.marks.items()}  # fmt: skip
    made = {node.output[0]: node for node in found.file.graph.node}
    arrays, places = {}, dict(found.stored)
    for name, at in found.stored.items():
        behind = dequantized(found, made, at.name)
        if behind is None:
            continue
        try:
            arrays[name] = whole_array(behind, at, graph.parameters[name].shape)
        except ValueError as e:
            raise ValueError(f"{quoted(behind.node.input[0])!r}: {e}") from None
        computed = behind.node.input[0] not in found.file.constants
        places[name] = replace(
            at, name=behind.node.input[0], node=behind.node.output[0], place=0,
            axes=at.axes if at.split else tuple(behind.order[a] for a in at.axes),
            shape=behind.q.shape if computed else (),
        )  # fmt: skip
    called = {own: told.op for told in found.told for own in told.nodes}
    return QuantizedNet(graph, marks, arrays, called), places


def dequantized(found: Imported, made: Mapping[str, Any], name: str) -> Dequantized | None:
    """What a constant was before it became floats; None where it was floats all along. ValueError where it is none."""
    order: tuple[int, ...] = tuple(range(np.ndim(found.constants[name])))
    while (node := made.get(name)) is not None and node.op_type in (*PASSED, "Transpose"):
        if node.op_type == "Transpose":
            perm = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), order[::-1])
            order = tuple(perm[a] for a in order)
        name = node.input[0]
    if node is None or node.op_type != "DequantizeLinear":
        return None
    q, scale = (found.constants[name] for name in node.input[:2])
    given = len(node.input) > 2 and node.input[2]
    zero = found.constants[node.input[2]] if given else np.zeros((), q.dtype)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    what = f"the scale of {quoted(node.input[0])!r}"
    return Dequantized(node, q, checked_scale(scale, what), zero, axis % max(1, q.ndim), order)


def whole_array(of: Dequantized, at: Stored, shape: tuple[int, ...]) -> WholeArray:
    """Whole numbers in our layout; ValueError where their scales are not those of output channels, the last axis."""
    if of.q.dtype.kind not in "iu" or at.inverse:
        raise ValueError(f"it is of {of.q.dtype}, or an inverse of what is stored")
    moved = replace(at, factor=1.0)
    q, scale = (
        moved.ours(values.transpose(of.order)).reshape(shape)
        for values in (of.q.astype(np.int64) - of.along(of.zero).astype(np.int64), of.along(of.scale))
    )
    each = scale.reshape(-1, shape[-1])
    if (each != each[:1]).any():
        raise ValueError("it has scales along another axis than that of output channels")
    one = each[0] * at.factor
    return WholeArray(q, one.astype(np.float32))


class WholePlaced(Placed):
    """A model whose whole numbers and scales are replaced. constants: what depends on no input, as it was."""

    def __init__(self, file: ModelFile, what: str, constants: Mapping[str, np.ndarray]):
        super().__init__(file, what)
        self.constants = constants

    def readers(self, name: str) -> list[Any]:
        """The nodes that read a tensor."""
        return [node for node in self.proto.graph.node if name in node.input]

    def put_if_other(self, node: Any, place: int, array: np.ndarray, old: np.ndarray) -> None:
        """Let an input be this array where it was another one; other readers of that keep theirs."""
        if array.shape == old.shape and (array == old.astype(array.dtype)).all():
            return
        if len(self.readers(node.input[place])) > 1:
            self.own.add(node.input[place])
        self.put(node, place, array)

    def tidy(self) -> None:
        """Take away constants that nothing reads any more."""
        graph = self.proto.graph
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        for node in [n for n in graph.node if n.op_type == "Constant" and n.output[0] not in used]:
            graph.node.remove(node)
        gone = {name for name in self.places if name not in used}
        for name in gone:
            graph.initializer.remove(self.places.pop(name))
            self.left.discard(name)
        for given in [given for given in graph.input if given.name in gone]:  # older files list constants there too
            graph.input.remove(given)

    def without_pair(self, weights: str) -> None:
        """Take away the two nodes that round what the layer of these weights gives, where nothing else reads it."""
        graph, end = self.proto.graph, self.readers(weights)[0]
        after = self.readers(end.output[0])
        if len(after) == 1 and after[0].op_type == "Add":
            end = after[0]
            after = self.readers(end.output[0])
        if len(after) != 1 or after[0].op_type != QUANTIZE[0]:
            return
        pair = [after[0]]
        while len(back := self.readers(pair[-1].output[0])) == 1 and back[0].op_type == "Cast":
            pair.append(back[0])
        if len(back) != 1 or back[0].op_type != QUANTIZE[1]:
            return
        if any(back[0].output[0] == output.name for output in graph.output):
            end.output[0] = back[0].output[0]
        for node in self.readers(back[0].output[0]):
            for i, name in enumerate(node.input):
                if name == back[0].output[0]:
                    node.input[i] = end.output[0]
        for node in (*pair, back[0]):
            graph.node.remove(node)


def rewritten(
    original: str | os.PathLike, graph: Graph, said: Mapping[str, str]
) -> tuple[bytes, dict[str, np.ndarray]]:  # fmt: skip
    """The file `original` with the weights of a net of whole numbers that came from it, in 8 bits.

    said: metadata. Also what the file's weights are then, by our names: (q − zero) of each w. CheckpointError where the
    file is not the one that the net is from.
    """
    read, what = imported(original, graph.size), f"the ONNX model {original}"
    file, kept = read.file, dict[str, np.ndarray]()
    placed = WholePlaced(file, what, read.constants)
    layers = [name.removesuffix(".w") for name in graph.stored if name.endswith(".w")]
    ends = {graph.node(t).inputs[0].removesuffix(".sums") for t in graph.outputs} | {*graph.outputs}
    for name in layers:
        at, old = stored_at(placed, graph, f"{name}.w")
        w = real(graph, f"{name}.w")
        new = w.shape[-1] != old.q.size // max(1, w[..., 0].size)
        zeros, kind = old.zero.astype(np.int64), np.iinfo(old.q.dtype)
        limits = (int((kind.min - zeros).max()), int((kind.max - zeros).min()))
        scale, q = in_8_bits(w, old.scale, limits, new)
        kept[f"{name}.w"] = q
        shape = as_stored(at, q, old.q.shape, f"{name}.w of {what}").shape
        zero = np.resize(old.zero, scale.shape) if old.zero.size > 1 else old.zero
        side = [-1 if i == at_axis(at, shape) else 1 for i in range(len(shape))] if zero.size > 1 else ()
        whole = as_stored(at, q, old.q.shape, name) + zero.astype(np.int64).reshape(side)
        placed.put(old.node, 0, whole.astype(old.q.dtype))
        placed.put_if_other(old.node, 1, scale.reshape(() if old.scale.ndim == 0 else -1), old.scale)
        if old.zero.size > 1:
            placed.put_if_other(old.node, 2, zero.astype(old.zero.dtype), old.zero)
        if new:
            placed.classes = w.shape[-1]
        if f"{name}.b" in graph.stored:
            put_bias(placed, graph, name, scale, old)
        if name in ends:
            placed.without_pair(old.node.output[0])
    placed.tidy()
    return finished(file, placed, said, graph.size, what), kept


def stored_at(placed: WholePlaced, graph: Graph, name: str) -> tuple[Stored, Dequantized]:
    """Where a parameter is in a file, and what stands there; CheckpointError where that is another file."""
    at = Stored.of(graph.stored[name])
    node = placed.nodes.get(at.node)
    if node is None or node.input[at.place : at.place + 1] != [at.name]:
        raise CheckpointError(f"{placed.what} has no {quoted(at.name)!r}, from which {name} is: it is another model")
    q, scale, *zero = (placed.constants[given] for given in node.input if given)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    zeros = zero[0] if zero else np.zeros((), q.dtype)
    return at, Dequantized(node, q, np.asarray(scale, np.float64), zeros, axis % max(1, q.ndim), at.axes)


def at_axis(at: Stored, shape: tuple[int, ...]) -> int:
    """The axis of output channels in the file."""
    return at.axes[-1] if len(at.axes) == len(shape) else (0 if at.axes[-1] == 0 else len(shape) - 1)


def put_bias(placed: WholePlaced, graph: Graph, name: str, scale: np.ndarray, w: Dequantized) -> None:
    """Write the bias of a layer: whole numbers in steps of its sums, or floats where the file has such."""
    b, at = real(graph, f"{name}.b"), Stored.of(graph.stored[f"{name}.b"])
    node = placed.nodes.get(at.node)
    if node is not None and node.op_type != QUANTIZE[1]:
        shape = as_stored(at, b, placed.constants[at.name].shape, f"{name}.b of {placed.what}").shape
        placed.put(node, at.place, b.astype(np.float32).reshape(shape))
        return
    at, held = stored_at(placed, graph, f"{name}.b")
    steps, q = in_32_bits(b, held.scale.reshape(-1)[0] / w.scale.reshape(-1)[0], scale, held.scale)
    placed.put(held.node, 0, q.astype(held.q.dtype))
    placed.put_if_other(held.node, 1, steps.reshape(() if held.scale.ndim == 0 else -1), held.scale)
    if held.zero.size > 1:
        placed.put_if_other(held.node, 2, np.zeros(steps.shape, held.zero.dtype), held.zero)


__all__ = ["holds_quantized", "load_whole", "rewritten"]
