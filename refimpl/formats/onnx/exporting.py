"""An adapted net back into the ONNX file that it came from: the same graph and names, with the weights that it has now.

Only initializers change, and where the classes are others the classifier's own with the last axis of the output. A
model that was exported in training mode leaves in inference, as it was read. What a file of ours says of itself
(`saved.described`) travels in the model's `metadata_props`.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...storage import checkpoint
from ...storage.checkpoint import CheckpointError
from ...storage.files import quoted
from . import model_file
from .importing import TAG
from .value import Stored

MOST_BYTES = 2**31 - 1  # of a file of ONNX with its weights in it


def exported(
    original: str | os.PathLike, stored: Mapping[str, Mapping], weights: Mapping[str, np.ndarray],
    said: Mapping[str, str], size: tuple[int, int] | None = None,
) -> bytes:  # fmt: skip
    """The file `original` with these weights.

    stored: parameter → where the file has it, as `Graph.stored`; weights: by the names of parameters; said: metadata;
    size: rows and columns of the maps that the net takes, where they may be others than the file's. CheckpointError
    where the file is not the one that the net is from.
    """
    file, what = model_file.read(original), f"the ONNX model {original}"
    placed = Placed(file, what)
    nodes = placed.nodes
    for name, where in stored.items():
        at = Stored.of(where)
        if at.node not in nodes or nodes[at.node].input[at.place : at.place + 1] != [at.name]:
            raise CheckpointError(f"{what} has no {quoted(at.name)!r}, from which {name} is: it is another model")
        if name not in weights:
            raise CheckpointError(f"the net has no weights {name}, which {what} needs")
        old = constant(file, nodes, at.name)
        if old is None:  # computed by other nodes, whose place the array takes
            old = np.empty(at.shape, np.float32)
        array = as_stored(at, weights[name], old.shape, f"{name} of {what}")
        if array.shape != old.shape:
            placed.classes = array.shape[next(i for i, n in enumerate(old.shape) if array.shape[i] != n)]
        also = [(nodes[node], place) for node, place in at.also]
        placed.put(nodes[at.node], at.place, array.astype(old.dtype), also)
    return finished(file, placed, said, size, what)


class Placed:
    """A model whose constants are replaced. nodes: by their first output; classes: how many it tells now, if others."""

    def __init__(self, file: model_file.ModelFile, what: str):
        self.proto, self.what, self.classes = file.proto, what, None
        self.nodes: dict[str, Any] = {n.output[0]: n for n in file.graph.node if n.output}
        self.places = {tensor.name: tensor for tensor in file.graph.initializer}
        self.left = {name for name, tensor in self.places.items() if tensor.HasField("data_location")}
        self.own: set[str] = set()  # names that were written

    def put(self, node: Any, place: int, array: np.ndarray, also: Sequence[tuple[Any, int]] = ()) -> None:
        """Let input number `place` of a node be this array, and those of other nodes that share the constant.

        A constant that was written, since layers read it in different ways, or a copy: each has its own then.
        """
        from onnx import numpy_helper

        name = target = node.input[place]
        if name in self.own or name not in self.places:
            target = fresh(name, self.places)
            for reader, i in ((node, place), *also):
                reader.input[i] = target
            self.places[target] = self.proto.graph.initializer.add()
        self.own.add(name)
        self.places[target].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), target))
        self.left.discard(target)


def finished(
    file: model_file.ModelFile, placed: Placed, said: Mapping[str, str], size: tuple[int, int] | None, what: str
) -> bytes:  # fmt: skip
    """The bytes of a model whose constants were placed, with metadata, and maps of another size where one is given."""
    from onnx import numpy_helper

    proto = file.proto
    for name in placed.left:  # weights that lie in a file beside it
        placed.places[name].CopyFrom(numpy_helper.from_array(file.constants[name], name))
    if placed.classes is not None:
        del proto.graph.value_info[:]
        dims = proto.graph.output[0].type.tensor_type.shape.dim
        if dims:
            dims[len(dims) - 1].dim_value = placed.classes
    if size is not None:
        sized(file, size)
    infers(file, placed.nodes)
    others = [entry for entry in proto.metadata_props if not entry.key.startswith(TAG)]  # not those of an earlier run
    del proto.metadata_props[:]
    proto.metadata_props.extend(others)
    for key, text in said.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = f"{TAG}{key}", text
    if proto.ByteSize() > MOST_BYTES:
        raise CheckpointError(f"{what} would take {proto.ByteSize():,} bytes, a file of ONNX at most {MOST_BYTES:,}")
    return proto.SerializeToString()


def constant(file: model_file.ModelFile, nodes: Mapping, name: str) -> np.ndarray | None:
    """The array that a layer reads: an initializer, one that an Identity copies, or that of a Constant; else None."""
    from onnx import numpy_helper

    while name not in file.constants:
        node = nodes[name]
        if node.op_type == "Constant":
            return numpy_helper.to_array(node.attribute[0].t)
        if node.op_type != "Identity":
            return None
        name = node.input[0]
    return file.constants[name]


def fresh(name: str, places: Mapping) -> str:
    """A name that no initializer has."""
    return next(new for i in range(2, len(places) + 3) if (new := f"{name}.{i}") not in places)


def as_stored(at: Stored, array: np.ndarray, old: tuple[int, ...], what: str) -> np.ndarray:
    """An array of ours as the file arranges it; old: the shape that the file has, which may have other classes.

    CheckpointError where more than the classes, our last axis, is another.
    """
    split = list(at.split or old)
    own = [split[axis] for axis in at.axes]
    if array.size % max(1, math.prod(own[:-1])):
        raise CheckpointError(f"{what} has the shape {array.shape}, the file's {quoted(at.name)!r} has {old}")
    own[-1] = split[at.axes[-1]] = array.size // max(1, math.prod(own[:-1]))
    shape = list(old)
    if at.split and len(split) != len(old):  # some axes of `split` are one of the file's, those of the classes are not
        shape[0 if at.axes[-1] == 0 else -1] = own[-1]
    else:
        shape[at.axes[-1]] = own[-1]
    return at.theirs(array.reshape(own), shape)


def infers(file: model_file.ModelFile, nodes: Mapping) -> None:
    """Let batch norms and dropouts of a file that was exported in training mode compute as in inference."""
    graph, gone = file.graph, set[str]()
    read = {n for node in graph.node for n in node.input} | {o.name for o in graph.output}
    for node in graph.node:
        if node.op_type == "Dropout" and len(node.input) > 2 and np.any(constant(file, nodes, node.input[2])):
            gone.update(node.input[2:])
            del node.input[2:]
        modes = [a for a in node.attribute if a.name == "training_mode" and node.op_type == "BatchNormalization"]
        if modes and modes[0].i and not read.intersection(node.output[1:]):
            del node.output[1:]
            node.attribute.remove(modes[0])
    gone -= {n for node in graph.node for n in node.input}
    for tensor in [t for t in graph.initializer if t.name in gone]:
        graph.initializer.remove(tensor)


def sized(file: model_file.ModelFile, size: tuple[int, int]) -> None:
    """Let the input of a file say the size that the net takes now."""
    dims = file.inputs[0].type.tensor_type.shape.dim
    axes = (dims[1:-1] if model_file.channels_last(file) else dims[2:]) if len(dims) > 2 else ()
    if [d.dim_value for d in axes if d.dim_value] not in ([], list(size), [size[1]]):
        for dim, n in zip(axes, size if len(axes) == 2 else size[1:], strict=True):
            dim.dim_value = n
        del file.graph.value_info[:]


def write(path: str | os.PathLike, content: bytes) -> None:
    """Write a model at once, beside its place and renamed; CheckpointError where that fails."""
    checkpoint.write_atomic(path, [content])
