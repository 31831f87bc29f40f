"""PyTorch state dicts as NumPy arrays, to and from our names and layouts; PyTorch itself is not needed.

    convolution  (K, C/G, R, S)  ↔  (R, S, C/G, K)
    linear       (K, D)          ↔  (D, K); after a flatten, D runs over (C, H, W) there and over (H, W, C) here

ResNet-18 and MobileNetV2 have torchvision's module names there, other models the names of our nodes.
"""

import re
from collections.abc import Mapping

import numpy as np

from ..graph import Graph
from ..storage.checkpoint import CheckpointError, check_arrays

LOCAL = {"w": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}  # running statistics bear the same names


def torch_module(graph: Graph, node: str) -> str:
    """Name of the PyTorch module for one of our nodes: `block2.expand.bn` is `features.2.conv.0.1`."""
    if graph.name != "mobilenet_v2":
        return re.sub(r"downsample\.(conv|bn)$", lambda m: f"downsample.{int(m[1] == 'bn')}", node)
    blocks = sum(n.name.endswith(".project") for n in graph.nodes)
    name, bn = (node.removesuffix(".bn"), 1) if node.endswith(".bn") else (node, 0)
    if name == "fc":
        return "classifier.1"
    if name in ("stem", "head"):
        return f"features.{0 if name == 'stem' else blocks + 1}.{bn}"
    block, part = re.fullmatch(r"block(\d+)\.(expand|depthwise|project)", name).groups()
    # a block without expansion lacks the first module
    parts = [p for p in ("expand", "depthwise", "project") if f"block{block}.{p}.w" in graph.parameters]
    i = parts.index(part)
    return f"features.{block}.conv.{i + bn}" if part == "project" else f"features.{block}.conv.{i}.{bn}"


def torch_names(graph: Graph) -> dict[str, str]:
    """PyTorch's name for each of the graph's parameters and running statistics."""
    return {
        parameter: f"{torch_module(graph, node.name)}.{LOCAL.get(local, local)}"
        for node in graph.nodes
        for local, parameter in node.params.items()
    }


def _linear_maps(graph: Graph) -> dict[str, tuple[int, int, int]]:
    """Weights of linear layers that read a flattened map, with the map's (H, W, C)."""
    flat = {n.name: graph.shape(n.inputs[0])[1:] for n in graph.nodes if n.op == "flatten"}
    return {n.params["w"]: flat[n.inputs[0]] for n in graph.nodes if n.op == "linear" and n.inputs[0] in flat}


def torch_shape(graph: Graph, parameter: str) -> tuple[int, ...]:
    """Shape of PyTorch's array for one parameter."""
    shape = graph.parameters[parameter].shape
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def from_torch(graph: Graph, state: Mapping[str, np.ndarray], head: bool = True) -> dict[str, np.ndarray]:
    """Our arrays from a PyTorch state dict of NumPy arrays, each contiguous, dtypes kept.

    head: with False the last linear layer is left out, for a net with other classes. `num_batches_tracked` is ignored.
    Raises CheckpointError that names the first array that is missing, has another shape, or is not known.
    """
    return from_state(graph, state, torch_names(graph), f"the PyTorch state of {graph.name}", head)


def from_state(
    graph: Graph, state: Mapping[str, np.ndarray], names: dict[str, str], what: str, head: bool = True
) -> dict[str, np.ndarray]:  # fmt: skip
    """As `from_torch`, by other names. names: our parameter → its name in the state; what: how messages call that."""
    state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    if not head:
        last = [n for n in graph.nodes if n.op == "linear"][-1]
        for parameter in last.params.values():
            state.pop(names.pop(parameter), None)
    check_arrays(state, {names[p]: torch_shape(graph, p) for p in names}, what)
    return {parameter: from_torch_layout(graph, parameter, state[name]) for parameter, name in names.items()}


def from_torch_layout(graph: Graph, parameter: str, array: np.ndarray) -> np.ndarray:
    """Our array of PyTorch's for one parameter, contiguous."""
    array, maps = np.asarray(array), _linear_maps(graph)
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif parameter in maps:
        h, w, c = maps[parameter]
        array = array.reshape(-1, c, h, w).transpose(2, 3, 1, 0).reshape(h * w * c, -1)
    elif array.ndim == 2:
        array = array.T
    return np.ascontiguousarray(array)


def to_torch(graph: Graph, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`: PyTorch's names and layouts. Raises CheckpointError as it does."""
    check_arrays(arrays, {p: v.shape for p, v in graph.parameters.items()}, f"the weights of {graph.name}")
    maps = _linear_maps(graph)
    state = {}
    for parameter, name in torch_names(graph).items():
        array = np.asarray(arrays[parameter])
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif parameter in maps:
            h, w, c = maps[parameter]
            array = array.reshape(h, w, c, -1).transpose(3, 2, 0, 1).reshape(-1, c * h * w)
        elif array.ndim == 2:
            array = array.T
        state[name] = np.ascontiguousarray(array)
    return state


__all__ = ["CheckpointError", "from_torch", "from_torch_layout", "to_torch", "torch_names", "torch_shape"]
