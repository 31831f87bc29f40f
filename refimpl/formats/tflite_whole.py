"""A quantized TensorFlow Lite model as a net of whole numbers, with the file's own scales and zero points, and back.

Its maps are whole numbers from operator to operator, and each tensor says its scale; rectifiers are parts of operators.
An input of whole numbers stays one: a pixel from 0 to 255 enters as the int8 number pixel − 128, which is the file's
own of uint8, and of int8 what converters for pixels make. The net rounds sums once, as TensorFlow Lite's kernels can
(`kernels.requantize`).

`rewritten` puts weights back in their places, byte for byte: the file keeps its length, its operators and all scales of
maps. Readings:
  [ours] Weights of 16 bits become 8 bits: by the file's scale where they fit, else by the least one that holds them,
         which takes that one's place.
  [ours] A classifier for other classes has no place in the file: such a net stays in our own format.
"""

import os

import numpy as np

from ..data.pixels import Level
from ..graph import Graph
from ..kernels.passes import ShapeError
from ..storage import files
from ..storage.checkpoint import CheckpointError
from ..surgery.classifier import changed
from ..surgery.quantize import INT8
from .tflite import LiteReading, begun, read_tflite
from .whole_net import QuantizedNet, in_8_bits, in_32_bits, real, whole_net


def holds_quantized(path: str | os.PathLike, what: str) -> bool:
    """Are the maps of a model whole numbers? CheckpointError as `tflite.read_tflite`. what: how messages call it."""
    return bool(read_tflite(path, what, marks=True).marks)


def load_whole(
    path: str | os.PathLike, classes: int | None = None, size: tuple[int, int] | None = None,
    pixels: tuple[Level, Level] | None = None,
) -> Graph:  # fmt: skip
    """The net of a quantized TensorFlow Lite model in whole numbers, with its weights; arguments as `onnx.load_whole`.

    Input (N, H, W, C) int8, or floats where the model takes such. CheckpointError in one sentence where it cannot be
    read, `whole_net.WithoutForm` where operators have no form in whole numbers.
    """
    what = str(path)
    lite = read_tflite(path, what, marks=True)
    try:
        graph = changed(lite.graph, None, size, None, what)
    except ShapeError as e:
        raise CheckpointError(f"{what} cannot take maps of {'x'.join(map(str, size or ()))}: {e}") from None
    graph.weights = lite.graph.weights
    net = QuantizedNet(graph, lite.marks, lite.arrays, lite.called, lite.whole_input)
    new = whole_net(net, f"the model {what}", classes)
    new.stored = {
        name: {"tensor": tensor, "axes": axes} for name, (tensor, axes) in lite.taken.items() if name in new.parameters
    }
    new.origin = f"pre-trained, of the model {os.path.basename(path)}"
    if lite.whole_input:
        new.pixels = (float(INT8.min), float(INT8.max))
    elif pixels is not None:
        new.pixels = pixels
    return new


def rewritten(original: str | os.PathLike, graph: Graph) -> tuple[bytes, dict[str, np.ndarray]]:
    """The file `original` with the weights of a net of whole numbers that came from it, in 8 bits.

    Also what the file's weights are then, by our names: (q − zero) of each w. CheckpointError where the file is not the
    one that the net is from, or has no place for other classes.
    """
    what, kept = f"the model {original}", dict[str, np.ndarray]()
    net, _ = begun(original, str(original))
    raw = bytearray(net.subgraph.file.raw)
    with files.reading(what, CheckpointError, "is not the one that the net is from"):
        for name in (n.removesuffix(".w") for n in graph.stored if n.endswith(".w")):
            put_layer(net, raw, graph, name, kept)
    return bytes(raw), kept


def put_layer(net: LiteReading, raw: bytearray, graph: Graph, name: str, kept: dict[str, np.ndarray]) -> None:
    """Write weights and bias of a layer, and their scales, into the bytes of a model."""
    tensor, axes = graph.stored[f"{name}.w"]["tensor"], graph.stored[f"{name}.w"]["axes"]
    held, old = net.scales(tensor), net.stored(tensor)
    if held is None or old is None:
        raise ValueError(f"it has no whole numbers where {name}.w is from")
    w, zeros, ends = real(graph, f"{name}.w"), held[1].astype(np.int64), np.iinfo(old.dtype)
    shape = tuple(old.shape[axis] for axis in axes)
    if w.size != old.size or w.shape[-1] != shape[-1]:
        raise CheckpointError(
            f"{name} tells {w.shape[-1]} classes, but the file has a place for {shape[-1]}: a model of TensorFlow Lite "
            "takes weights in the places of those that it has"
        )
    limits = (int((ends.min - zeros).max()), int((ends.max - zeros).min()))
    scale, q = in_8_bits(w, held[0], limits, False)
    kept[f"{name}.w"] = q
    side = zeros if zeros.size == 1 else zeros.reshape([-1 if axis == held[2] else 1 for axis in range(old.ndim)])
    put(net, raw, tensor, (q.reshape(shape).transpose(np.argsort(axes)) + side).astype(old.dtype), scale)
    if f"{name}.b" in graph.stored:
        tensor = graph.stored[f"{name}.b"]["tensor"]
        of_bias, old = net.scales(tensor), net.stored(tensor)
        if of_bias is None or old is None:
            raise ValueError(f"it has no whole numbers where {name}.b is from")
        steps, q = in_32_bits(real(graph, f"{name}.b"), of_bias[0][0] / held[0][0], scale, of_bias[0])
        put(net, raw, tensor, q.astype(old.dtype), steps)


def put(net: LiteReading, raw: bytearray, tensor: int, array: np.ndarray, scale: np.ndarray) -> None:
    """Let a constant and its scales be these, in their places."""
    place, quantized = net.place(tensor), net.tensors[tensor].table(4)
    assert place is not None and quantized is not None
    for begin, values in ((place[2], array), (quantized.span(2, 4)[0], scale.astype("<f4"))):
        content = np.ascontiguousarray(values).tobytes()
        raw[begin : begin + len(content)] = content


__all__ = ["holds_quantized", "load_whole", "rewritten"]
