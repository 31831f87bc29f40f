"""The walk through an ONNX graph that makes a Graph of ours.

ONNX arranges maps as (N, C, H, W), we as (N, H, W, C). A `Value` stands for a tensor of the ONNX graph: it names ours
and says which of our axes each axis of ONNX is, so that a transpose is a change of words, and only a node that reads
all axes in their order, where no converter knows better, makes one that runs.

What depends on no input is computed at once: constants, and the shapes that an export computes with. The batch is an
axis of its own: a graph whose nodes mix samples cannot be read.
"""

import contextlib
import importlib
import os
import pkgutil
import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...graph import INPUT, Graph
from ...kernels.passes import ShapeError
from ...storage import files
from ...storage.checkpoint import CheckpointError, check_floats
from ...storage.files import quoted
from ...surgery.classifier import changed
from . import model_file, operators
from .layout import SAMPLES, of_axes
from .model_file import STANDARD, ModelFile
from .value import BEHIND, FLOATS, FORWARD, MAP, MISSING, ROW, TRAINS, Imported, Told, Unsupported, Value
from .walk import OnnxNode, Walk

TAG = "gradledger."  # before what we say in the metadata
OF_SHAPES = {  # operators by which exports compute with shapes: what comes behind a missing one may be that
    "Shape", "Gather", "Slice", "Ceil", "Floor", "Div", "Sub", "Cast", "ConstantOfShape", "Range", "Expand", "Where",
    "Equal", "Max", "Min",
}  # fmt: skip
SHOWN = 3  # nodes that a sentence names


@cache
def converters() -> dict[str, ModuleType]:
    """Operator of ONNX → the module that converts it."""
    modules = [
        importlib.import_module(f"{operators.__name__}.{m.name}") for m in pkgutil.iter_modules(operators.__path__)
    ]
    return {op: module for module in modules for op in module.OPERATORS}


def entrance(file: ModelFile, size: tuple[int, int] | None, what: str) -> tuple[Graph, Value]:
    """A graph with the input of the file, and what stands for it; CheckpointError where we take no such input."""
    if len(file.inputs) != 1:
        names = quoted(", ".join(i.name for i in file.inputs) or "none")
        raise CheckpointError(f"{what} takes {len(file.inputs)} inputs ({names}), but one is read: samples")
    given = file.inputs[0]
    kind = given.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    said = quoted("x".join(str(d.dim_param or d.dim_value or "?") for d in kind.shape.dim) or "none")
    if any(n is not None and n < 0 for n in dims):
        raise CheckpointError(f"the input {quoted(given.name)!r} of {what} has the shape {said}, which cannot be")
    if len(dims) == 5 and (name := solid(file)):
        raise CheckpointError(
            f"the input {quoted(given.name)!r} of {what} has the shape {said}, and {name} runs along three axes of it: "
            "convolutions and pools are read along two, of maps (N, C, H, W), or one, of sequences (N, C, T)"
        )
    if kind.elem_type not in FLOATS or len(dims) not in (2, 3, 4):
        raise CheckpointError(
            f"the input {quoted(given.name)!r} of {what} has the shape {said} of {kind_named(kind.elem_type)}; "
            "maps (N, C, H, W), sequences (N, C, T) and features (N, D) are read, of floats of 16, 32 or 64 bits"
        )
    last = model_file.channels_last(file)
    channels, axes = dims[-1] if last else dims[1], dims[1:-1] if last else dims[2:]
    if not channels:
        raise CheckpointError(f"the input {quoted(given.name)!r} of {what} has the shape {said}: its channels are open")
    name = re.sub(r"\W+", "_", os.path.basename(file.path).removesuffix(".onnx"))
    if len(dims) == 2:  # features are maps of one pixel
        graph = Graph(name, (1, 1), channels)
        return graph, arranged(graph, INPUT, (0, 3))
    if size is None and not all(axes):
        raise CheckpointError(f"the input {quoted(given.name)!r} of {what} has the shape {said}: give its size, --size")
    rows, columns = (1, *axes) if len(axes) == 1 else axes
    height, width = size or (1, 1)
    graph = Graph(name, (rows or height, columns or width), channels)
    if len(dims) == 3:
        return graph, arranged(graph, INPUT, (0, 2, 3) if last else ROW)
    return graph, arranged(graph, INPUT, (0, 1, 2, 3) if last else MAP)


def solid(file: ModelFile) -> str:
    """The first node of a file that is a convolution or pool along three axes, and its operator; "" where none is."""
    for i, node in enumerate(file.graph.node):
        weights = [file.constants[n] for n in node.input[1:2] if n in file.constants]
        axes = [len(a.ints) for a in node.attribute if a.name == "kernel_shape"] + [a.ndim - 2 for a in weights]
        if axes[:1] == [3] and node.op_type.endswith(("Conv", "ConvTranspose", "Pool")):
            return f"{name_of(node, i)} ({quoted(node.op_type)})"
    return ""


def name_of(node: Any, place: int) -> str:
    """How messages call node number `place` of a file."""
    return quoted(node.name or f"{node.op_type}_{place}")


def arranged(graph: Graph, tensor: str, axes: tuple[int, ...]) -> Value:
    """A tensor of ours, each axis of ONNX one of its own."""
    own = graph.shape(tensor)[1:]
    return Value(tensor, own, of_axes(axes, own))


def kind_named(elem_type: int) -> str:
    """A dtype of ONNX, by its name."""
    import onnx

    with files.reading("the dtype", CheckpointError):
        return onnx.TensorProto.DataType.Name(elem_type).lower()


def needed(file: ModelFile) -> set[str]:
    """The first output of each node that the graph's first output depends on."""
    wanted, found = {file.graph.output[0].name}, set()
    for node in reversed(file.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            found.add(node.output[0])
    return found


def imported(model: str | os.PathLike | ModelFile, size: tuple[int, int] | None = None) -> Imported:
    """Convert a file, or one that was read, as far as it goes. size: of the input's maps, where it leaves that open.

    CheckpointError where it cannot be read, or its input is none that we take.
    """
    file = model_file.of(model)
    what = f"the ONNX model {file.path}"
    graph, value = entrance(file, size, what)
    given = file.inputs[0]
    batch = max(1, given.type.tensor_type.shape.dim[0].dim_value)
    walk = Walk(file, what, Path(file.path).resolve().parent, graph, batch, {**file.constants, given.name: value})
    wanted, end = needed(file), file.graph.output[0].name
    for node in file.graph.node:
        for name in set(node.input):
            walk.consumers.setdefault(name, []).append(node)
    walk.consumers.setdefault(end, []).append(None)
    with files.reading(what, CheckpointError, "cannot be read"):
        for node in file.graph.node:  # constants of nodes that are converted together may stand behind the first
            if node.output[0] in wanted and all(isinstance(walk.values.get(n), np.ndarray) for n in node.input if n):
                with contextlib.suppress(Unsupported):
                    if walk.fold(node):
                        walk.folded += 1
                        walk.done.add(node.output[0])
        for i, node in enumerate(file.graph.node):
            if node.output[0] in wanted - walk.done:
                converted(walk, node, i)
    constants = {name: value for name, value in walk.values.items() if isinstance(value, np.ndarray)}
    found = Imported(file, None, None, walk.told, walk.stored, walk.folded, walk.notes, walk.marks, constants)
    if end in walk.lost:
        return found
    last = walk.values.get(end)
    if isinstance(last, Value) and SAMPLES not in last.layout[0]:
        raise CheckpointError(f"the output {quoted(end)!r} of {what} has samples along another axis than its first")
    if not isinstance(last, Value) or not graph.nodes:
        raise CheckpointError(f"the output {quoted(end)!r} of {what} depends on no layer that we run")
    if len(last.layout) == 2:
        last = walk.features(last) or last
    graph.outputs = (last.tensor,)
    found.told[:] = [freezes(graph, t) if t.what == FORWARD else t for t in found.told]
    if frozen := graph.frozen():
        ends = sorted({t.op for t in found.told if t.what == FORWARD})
        found.notes.append(f"gradients stop at {', '.join(ends)}: {len(frozen)} layers before that are frozen")
    if len(file.graph.output) > 1:
        others = ", ".join(repr(quoted(o.name)) for o in file.graph.output[1:])
        found.notes.append(
            f"the output {quoted(end)!r}, the first, trains and tells classes; no layer of {others} alone does"
        )
    check_floats(graph.weights, what)
    return replace(found, graph=graph, end=last)


def converted(walk: Walk, node: Any, place: int) -> None:
    """Convert a node, or tell why it cannot be."""
    name, outputs = name_of(node, place), {n for n in node.output if n}
    module = converters().get(node.op_type) if node.domain in STANDARD else None
    behind, before = bool(walk.lost.intersection(node.input)), len(walk.graph.nodes)
    try:
        if not behind and walk.fold(node):
            walk.folded += 1
            return
        if module is None and not (behind and node.op_type in OF_SHAPES):
            domain = "" if node.domain in STANDARD else f" of the domain {quoted(node.domain)}"
            raise Unsupported(f"there is no converter for {quoted(node.op_type)}{domain}")
        if behind:
            walk.told.append(Told(name, node.op_type, BEHIND))
            walk.lost |= outputs
            return
        assert module is not None
        module.convert(OnnxNode(walk, node, name))
        if lacks := [n for n in node.output if n and n in walk.consumers and n not in walk.values]:
            raise Unsupported(f"its output {quoted(lacks[0])!r} is read, which is not made")
    except (Unsupported, ShapeError) as e:
        walk.told.append(Told(name, node.op_type, MISSING, str(e)))
        walk.lost |= outputs
        return
    made = tuple(own.name for own in walk.graph.nodes[before:])
    walk.told.append(Told(name, node.op_type, FORWARD if stops(walk, node, made) else TRAINS, nodes=made))


def stops(walk: Walk, node: Any, made: tuple[str, ...]) -> bool:
    """Does no gradient go from what a node gives to what it takes? made: the nodes of ours that it became."""
    graph = walk.graph
    if not any(graph.node(name).operator.stops for name in made):
        return False
    takes, gives = (
        {v.tensor for n in of if isinstance(v := walk.values.get(n), Value)} for of in (node.input, node.output)
    )
    for own in reversed(graph.nodes):
        if takes & gives:
            return False
        if gives.intersection(own.outputs):
            gives.update(own.passing)
    return not takes & gives


def freezes(graph: Graph, told: Told) -> Told:
    """What is told of a node at which gradients stop, with the layers that it freezes."""
    before, frozen = set(told.nodes), graph.frozen()
    wanted = {x for name in told.nodes for x in graph.node(name).inputs}
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            before.add(node.name)
    layers = [name for name in frozen if name in before]
    more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
    why = f"this freezes {', '.join(layers[:SHOWN])}{more}" if layers else "no layer is frozen by that"
    return replace(told, why=f"gradients stop here: {why}")


def load_onnx(
    model: str | os.PathLike | ModelFile, classes: int | None = None, size: tuple[int, int] | None = None
) -> Graph:  # fmt: skip
    """The net of an ONNX file with its weights; with another number of classes its classifier starts from the seed.

    size: (H, W), default the file's own. CheckpointError in one sentence where it cannot be read, or holds
    operators that cannot be converted.
    """
    found = imported(model, size)
    graph, end, path = found.graph, found.end, found.file.path
    if graph is None or end is None:
        raise CheckpointError(lacking(found))
    if end.axes != (0, 1) or graph.size is None:
        shape = "x".join(map(str, graph.shape(graph.output)[1:]))
        raise CheckpointError(
            f"the ONNX model {path} gives {shape} for a sample, or takes no maps: what trains takes maps or sequences "
            "and gives a score for each class, (N, K)"
        )
    graph.stored = {name: asdict(stored) for name, stored in found.stored.items()}
    graph.origin = f"pre-trained, of the ONNX model {os.path.basename(path)}"
    try:
        new = changed(graph, classes, size, None, path)
    except ShapeError as e:
        raise CheckpointError(f"{path} cannot take maps of {'x'.join(map(str, size or ()))}: {e}") from None
    new.weights = {name: a for name, a in graph.weights.items() if a.shape == new.parameters[name].shape}
    new.origin = graph.origin
    return new


def lacking(found: Imported) -> str:
    """The sentence about nodes that cannot be converted."""
    each = [f"{t.name} ({t.op}): {t.why}" for t in found.missing]
    more = f"; and {len(each) - SHOWN} more" if len(each) > SHOWN else ""
    return (
        f"the ONNX model {found.file.path} cannot be trained: {'; '.join(each[:SHOWN])}{more} "
        f"(gradledger check {quoted(found.file.path)} tells of every node)"
    )


def own_map(file: ModelFile) -> tuple[int, int] | None:
    """Rows and columns of the maps that a file takes; None where it leaves them open. CheckpointError as `imported`."""
    dims = [d.dim_value for d in file.inputs[0].type.tensor_type.shape.dim]
    try:
        return entrance(file, None, f"the ONNX model {file.path}")[0].size
    except CheckpointError:
        if len(dims) == 4 and 0 in dims[1:]:
            return None
        raise


def said_in(file: ModelFile) -> dict[str, str]:
    """What `exporting` wrote into the metadata of a model."""
    props = file.proto.metadata_props
    return {p.key.removeprefix(TAG): p.value for p in props if p.key.startswith(TAG)}
