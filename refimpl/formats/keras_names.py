"""Keras's MobileNetV2 (`keras.applications`): its names for our arrays, and its layouts.

    convolution            (R, S, C, K)  as ours
    depthwise convolution  (R, S, C, 1)  →  (R, S, 1, C)
    dense                  (D, K)        as ours

The arrays bear the layers' names with `.kernel`, `.gamma`, `.beta`, `.moving_mean`, `.moving_variance`; those of the
classifier are `dense.dense.kernel` and `dense.dense.bias`. Files of Keras 3 count the layers of each kind instead.
"""

import re
from collections import Counter

from ..graph import Graph

FIRST = "Conv1.kernel"  # by which a file of this format is known
HEAD = "dense.dense"
STEMS = {"stem": ("Conv1", "bn_Conv1"), "head": ("Conv_1", "Conv_1_bn"), "fc": (HEAD, "")}
KINDS = {"conv2d": "conv2d", "batch_norm": "batch_normalization", "linear": "dense"}  # our operator → Keras's layer
BATCH_NORM = ("gamma", "beta", "running_mean", "running_var")  # in the order in which Keras counts arrays
ORDER = (*BATCH_NORM, "w", "b")
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


def counted_names(graph: Graph) -> dict[str, str]:
    """The names that Keras 3 counts by: the third convolution of the graph is conv2d_2, and its kernel conv2d_2.0."""
    found, counts = {}, Counter()
    for node in graph.nodes:
        if node.op not in KINDS:
            continue
        kind = "depthwise_conv2d" if node.name.endswith(".depthwise") else KINDS[node.op]
        layer = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        for local, parameter in node.params.items():
            found[parameter] = f"{layer}.{ORDER.index(local) % len(BATCH_NORM)}"
    return found


def keras_shape(graph: Graph, parameter: str) -> tuple[int, ...]:
    """Shape of Keras's array: of a depthwise kernel the channels and their multiplier, 1, change places."""
    shape = graph.parameters[parameter].shape
    return (*shape[:2], shape[3], 1) if parameter.endswith(".depthwise.w") else shape


__all__ = ["FIRST", "HEAD", "counted_names", "keras_names", "keras_shape"]
