"""A `.onnx` file, read: its graph with functions inlined, and its constants as arrays.

Nothing of the file is run, and of other files only weights that it names beside itself are read. The package `onnx`
(extra `onnx`) parses it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...storage import files, kinds
from ...storage.checkpoint import CheckpointError
from ...storage.files import quoted
from .integer_operators import expanded

OPSETS = range(9, 26)  # of the operators' standard domain that converters were written for
STANDARD = ("", "ai.onnx")  # names of that domain
MOST_NODES = 100_000


@dataclass(frozen=True)
class ModelFile:
    """A parsed model. proto: an `onnx.ModelProto`; opset: of the standard domain; constants: initializers by name."""

    path: str
    proto: Any
    opset: int
    constants: Mapping[str, np.ndarray]

    @property
    def graph(self) -> Any:
        """Its `onnx.GraphProto`."""
        return self.proto.graph

    @property
    def inputs(self) -> list:
        """The inputs that are no constants: older files list these among them."""
        return [i for i in self.graph.input if i.name not in self.constants]

    def source(self, name: str) -> str:
        """The constant of which `name` is a copy by Identity nodes; itself where it is none."""
        copies = {n.output[0]: n.input[0] for n in self.graph.node if n.op_type == "Identity"}
        while name in copies:
            name = copies[name]
        return name


def required() -> None:
    """CheckpointError where the package that parses such files is not installed."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise CheckpointError(
            "an ONNX model needs a package that is not installed: pip install 'gradledger[onnx]'"
        ) from None


def read(path: str | os.PathLike) -> ModelFile:
    """The model of a file; CheckpointError in one sentence where it is none, or holds what cannot be read."""
    required()
    import onnx

    what = f"the ONNX model {path}"
    with files.opened(path, what, CheckpointError) as file:
        size = os.fstat(file.fileno()).st_size
        files.check_size(2 * size, size, what, CheckpointError)
        try:
            with files.reading(what, CheckpointError, "is damaged"):
                proto = onnx.ModelProto.FromString(file.read())
        except CheckpointError:
            file.seek(0)
            if told := kinds.foreign(file, "an ONNX model") or kinds.safetensors(file):
                raise CheckpointError(f"{path} {told}") from None
            raise
    if not proto.graph.node or not proto.graph.output:
        raise CheckpointError(f"{what} holds no graph with nodes and an output")
    opset = next((o.version for o in proto.opset_import if o.domain in STANDARD), 0)
    if opset not in OPSETS:
        raise CheckpointError(
            f"{what} is of opset {opset}, but {OPSETS[0]} to {OPSETS[-1]} are read: export it again with one of these"
        )
    if proto.functions:
        from onnx import inliner

        with files.reading(what, CheckpointError, "holds functions that cannot be inlined"):
            proto = inliner.inline_local_functions(proto)
    with files.reading(what, CheckpointError, "is damaged"):
        proto = expanded(proto, opset)
    if len(proto.graph.node) > MOST_NODES:
        raise CheckpointError(f"{what} has {len(proto.graph.node):,} nodes, at most {MOST_NODES:,} are read")
    constants, folder = {}, Path(path).resolve().parent
    for tensor in proto.graph.initializer:
        constants[tensor.name] = array(tensor, folder, what)
    return ModelFile(str(path), proto, opset, constants)


def of(model: str | os.PathLike | ModelFile) -> ModelFile:
    """The model of a file, or one that was read already; CheckpointError as `read`."""
    return model if isinstance(model, ModelFile) else read(model)


def array(tensor: Any, folder: Path, what: str) -> np.ndarray:
    """The array of an `onnx.TensorProto`, its data in the file or in one that lies in `folder`."""
    import onnx
    from onnx import numpy_helper

    name = f"{quoted(tensor.name)!r} of {what}"
    if any(n < 0 for n in tensor.dims):
        raise CheckpointError(f"{name} says it has the shape {quoted(list(tensor.dims))}, which cannot be")
    with files.reading(name, CheckpointError, "is damaged"):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor = external(tensor, folder, name)
        return numpy_helper.to_array(tensor)


def external(tensor: Any, folder: Path, name: str) -> Any:
    """A tensor whose data lie in a file beside the model, with the data in it.

    CheckpointError for a file elsewhere, one that is missing, or one that does not hold so much.
    """
    import onnx

    said = {entry.key: entry.value for entry in tensor.external_data}
    where = said.get("location", "")
    path = Path(os.path.realpath(folder / where))
    if not where or os.path.isabs(where) or folder not in path.parents:
        raise CheckpointError(f"{name} is in {quoted(where)!r}, which does not lie beside the model")
    offset, length = int(said.get("offset", 0)), said.get("length")
    with files.opened(path, f"{path.name}, where {name} is", CheckpointError) as file:
        size = os.fstat(file.fileno()).st_size
        count = size - offset if length is None else int(length)
        if offset < 0 or count < 0 or offset + count > size:
            raise CheckpointError(
                f"{name} is said to be bytes {offset} to {offset + count} of {path.name}, which has {size}"
            )
        files.check_size(2 * count, size, f"{path.name}, where {name} is", CheckpointError)
        file.seek(offset)
        found = onnx.TensorProto()
        found.CopyFrom(tensor)
        found.ClearField("external_data")
        found.data_location = onnx.TensorProto.DEFAULT
        found.raw_data = file.read(count)
    return found


def channels_last(file: ModelFile) -> bool:
    """Takes it (N, H, W, C), or (N, T, C)? So where the input is read by transposes that bring its channels forward."""
    readers = [n for n in file.graph.node if file.inputs[0].name in n.input]
    perms = [tuple(a.ints) for n in readers if n.op_type == "Transpose" for a in n.attribute if a.name == "perm"]
    return bool(readers) and len(perms) == len(readers) and set(perms) <= {(0, 3, 1, 2), (0, 2, 1)}
