"""Keras's MobileNetV2 (`keras.applications`) as NumPy arrays, under our names and in our layouts; Keras is not needed.

    convolution            (R, S, C, K)  as ours
    depthwise convolution  (R, S, C, 1)  →  (R, S, 1, C)
    dense                  (D, K)        as ours

The arrays bear the layers' names with `.kernel`, `.gamma`, `.beta`, `.moving_mean`, `.moving_variance`; those of the
classifier are `dense.dense.kernel` and `dense.dense.bias`.
"""

import re
from collections.abc import Mapping

import numpy as np

from ..graph import Graph
from ..models import build
from ..storage.checkpoint import check_arrays, check_floats

FIRST = "Conv1.kernel"  # by which a file of this format is known
HEAD = "dense.dense"
STEMS = {"stem": ("Conv1", "bn_Conv1"), "head": ("Conv_1", "Conv_1_bn"), "fc": (HEAD, "")}
LOCAL = {"w": "kernel", "b": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}


def keras_layer(node: str) -> str:
    """Keras's name for one of our nodes: `block2.expand.bn` is `block_1_expand_BN`."""
    name, bn = (node.removesuffix(".bn"), True) if node.endswith(".bn") else (node, False)
    if name in STEMS:
        return STEMS[name][bn]
    block, part = re.fullmatch(r"block(\d+)\.(expand|depthwise|project)", name).groups()
    prefix = "expanded_conv" if block == "1" else f"block_{int(block) - 1}"
    return f"{prefix}_{part}" + ("_BN" if bn else "")


def keras_names(graph: Graph) -> dict[str, str]:
    """Keras's name for each of the graph's parameters and running statistics."""
    return {
        parameter: f"{keras_layer(node.name)}.{LOCAL.get(local, local)}"
        for node in graph.nodes
        for local, parameter in node.params.items()
    }


def from_keras(
    arrays: Mapping[str, np.ndarray],
    classes: int | None = None,
    size: tuple[int, int] | None = None,
    width: float = 1.0,
    what: str = "the Keras weights",
) -> Graph:
    """MobileNetV2 in Keras's variant with the weights of `arrays`.

    classes: default those of the arrays; with another number the classifier starts from the seed. size: (H, W), default
    that of the model. what: how messages call the arrays. Raises CheckpointError that names the first array that is
    missing, has another shape, or is not known.
    """
    kernel = arrays.get(f"{HEAD}.kernel")
    own = kernel.shape[-1] if kernel is not None and kernel.ndim else 1
    whole = build("mobilenet_v2", classes=own, size=size, width=width, variant="keras")
    names = keras_names(whole)
    shapes = {names[p]: _keras_shape(whole, p) for p in names}
    check_arrays(arrays, shapes, what)
    check_floats(arrays, what)
    graph = whole if classes in (None, own) else build("mobilenet_v2", classes=classes, size=size, **whole.options)
    for parameter, name in names.items():
        if whole.parameters[parameter].shape == graph.parameters[parameter].shape:
            array = np.asarray(arrays[name], np.float32)
            graph.weights[parameter] = np.ascontiguousarray(array.reshape(graph.parameters[parameter].shape))
    return graph


def _keras_shape(graph: Graph, parameter: str) -> tuple[int, ...]:
    """Shape of Keras's array: of a depthwise kernel the channels and their multiplier, 1, change places."""
    shape = graph.parameters[parameter].shape
    return (*shape[:2], shape[3], 1) if parameter.endswith(".depthwise.w") else shape


__all__ = ["FIRST", "from_keras", "keras_names"]
