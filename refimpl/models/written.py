"""A graph in words: JSON that a file of weights carries where no name of a model would build the graph again.

Nets of whole numbers are such: which nodes they have, with which multipliers, shifts and zero points as attributes, and
which arrays hold their scales follows from no option. So are graphs of the user's own, and pruned ones. `written` says
all of a graph but its weights, `read` builds it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from ..data.pixels import level_of, suit, words
from ..graph import DTYPES, INPUT, Graph, Parameter
from ..kernels.quantized import Quantized
from ..ops import operators
from ..storage.checkpoint import CheckpointError
from ..storage.files import quoted, reading
from . import MODELS, MOST, MOST_PIXELS, MOST_SIDE, ModelError, build

LARGEST = 2**31  # of a number among attributes


def written(graph: Graph) -> str:
    """The JSON of a graph: inputs, parameters (in their order), nodes, outputs, and what its pixels stand for."""
    nodes = []
    for node in graph.nodes:
        outputs = zip(node.operator.outputs, node.outputs, strict=True)
        stands = {local: asdict(q) for local, tensor in outputs if (q := graph.tensors[tensor].quantized)}
        nodes.append(
            {"name": node.name, "op": node.op, "inputs": node.inputs, "attrs": dict(node.attrs),
             "params": dict(node.params), "quantized": stands}
        )  # fmt: skip
    inputs = [graph.tensors[name] for name in graph.inputs]
    return json.dumps({
        "name": graph.name,
        "inputs": [{"name": t.name, "shape": t.shape[1:], **_kind(t)} for t in inputs],
        "parameters": {
            name: {"shape": p.shape, "init": p.init, "fan_in": p.fan_in, "gain": p.gain, **_kind(p)}
            for name, p in graph.parameters.items()
        },
        "nodes": nodes,
        "outputs": graph.outputs,
        "pixels": graph.pixels,
        "options": graph.options,
        "stored": graph.stored,
    })  # fmt: skip


def named(graph: Graph) -> bool:
    """Does `models.build` make this graph from its name, options, classes, size and channels?"""
    if graph.name not in MODELS or graph.inputs != (INPUT,):
        return False
    classes = graph.shape(graph.output)[-1]
    try:
        again = build(graph.name, **graph.options, classes=classes, size=graph.size, channels=graph.channels)
    except (ModelError, TypeError, ValueError):
        return False
    return _structure(again) == _structure(graph)


def _structure(graph: Graph) -> tuple:
    """All of a graph that decides what it computes: how parameters start does not enter."""
    parameters = {name: (p.shape, p.dtype, p.quantized) for name, p in graph.parameters.items()}
    return graph.nodes, graph.tensors, parameters, graph.outputs, graph.pixels


def _kind(array) -> dict:
    """Dtype and scale of a parameter or tensor."""
    return {"dtype": None if array.dtype is None else str(array.dtype),
            "quantized": array.quantized and asdict(array.quantized)}  # fmt: skip


def read(text: str, what: str) -> Graph:
    """The graph of such a JSON, without weights; CheckpointError in one sentence where it is none. what: the file."""
    with reading(f"the graph in {what}", CheckpointError, "is damaged"):
        return _read(json.loads(text))


def _read(said: Mapping) -> Graph:
    graph, made = Graph(str(said["name"])), {name: _parameter(p) for name, p in said["parameters"].items()}
    for later in (False, True):  # scales first
        for name, parameter in made.items():
            if (parameter.quantized is not None) == later:
                graph.add_parameter(name, parameter)
    graph.parameters = {name: graph.parameters[name] for name in made}
    for own in said["inputs"]:
        graph.add_input(own["name"], _shape(own["shape"], MOST_SIDE, MOST_PIXELS), _dtype(own), _quantized(own))
    for node in said["nodes"]:
        if node["op"] not in operators():
            raise ValueError(f"there is no operator {quoted(str(node['op']))}")
        attrs = {name: _attribute(value) for name, value in node["attrs"].items()}
        stands = {local: _scale(q) for local, q in node["quantized"].items()}
        params = {local: str(name) for local, name in node["params"].items()}
        graph.add_node(node["name"], node["op"], tuple(node["inputs"]), attrs, params, stands)
    graph.outputs = tuple(said["outputs"])
    black, white = map(level_of, said["pixels"])
    if not suit(black, white, graph.channels):
        raise ValueError(f"{words(black, white)} is not of C={graph.channels} channels")
    graph.pixels, graph.options = (black, white), dict(said["options"])
    graph.stored = {str(name): dict(where) for name, where in said.get("stored", {}).items()}
    return graph


def _parameter(said: Mapping) -> Parameter:
    if said["init"] not in ("he", "zeros", "ones"):
        raise ValueError(f"there is no init {quoted(str(said['init']))}")
    shape = _shape(said["shape"], MOST, MOST)
    return Parameter(shape, said["init"], int(said["fan_in"]), float(said["gain"]), _dtype(said), _quantized(said))


def _shape(said, most: int, product: int) -> tuple[int, ...]:
    shape = tuple(said)
    if not all(type(n) is int and 0 < n <= most for n in shape) or math.prod(shape) > product:
        raise ValueError(f"{quoted(str(said))} is no shape")
    return shape


def _dtype(said: Mapping) -> np.dtype | None:
    if said["dtype"] is not None and said["dtype"] not in DTYPES:
        raise ValueError(f"there is no dtype {quoted(str(said['dtype']))}")
    return None if said["dtype"] is None else np.dtype(said["dtype"])


def _quantized(said: Mapping) -> Quantized[str] | None:
    return None if said["quantized"] is None else _scale(said["quantized"])


def _scale(q: Mapping) -> Quantized[str]:
    return Quantized(str(q["scale"]), q["zero_point"] and str(q["zero_point"]), q["axis"])


def _attribute(value):
    """An attribute: a number, rows of them, or the padding "same"; TypeError for anything else."""
    if value == "same":
        return value
    if isinstance(value, list):
        return tuple(_attribute(v) for v in value)
    if isinstance(value, int | float) and abs(value) <= LARGEST:
        return value
    raise TypeError(f"{quoted(str(value))} is no attribute")


__all__ = ["named", "read", "written"]
