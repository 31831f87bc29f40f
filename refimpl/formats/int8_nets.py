"""Quantized microcontroller nets as arrays and a JSON structure, dequantized into a float32 graph.

The nets are those of "On-Device Training Under 256KB Memory" (arXiv 2206.15472): `structure` is a JSON object with
`first_conv`, `blocks` (each with `pointwise1`, `depthwise`, `pointwise2`, `residual`), `feature_mix` and `classifier`;
each convolution states its scales and zero points, and `{"array": key}` points to its arrays. An integer q means

    activation  x = x_scale·(q − x_zero)          int8, one scale and zero point a tensor
    weight      w[k] = w_scales[k]·q              int8 (K, C/G, R, S), one scale an output channel, zero point 0
    bias        b[k] = x_scale·w_scales[k]·q      int32 (K,)

so that y = w ∗ x + b in real numbers, where the padding is a real zero, ⌊R/2⌋ on every side [from that paper's code].
The first convolution has x_scale 1/127.5 and x_zero 0: a pixel from 0 to 255 enters as pixel/127.5 − 1, from −1 to 1.
ReLU6 is the saturation at −128 where y_zero is −128.
Our reading: at the upper end it is min(x, 6) in the float net, also where y_scale was chosen so small that the
integer net saturates below 6.
"""

import json
import math
from collections.abc import Mapping

import numpy as np

from ..graph import Graph
from ..models import build
from ..storage.checkpoint import CheckpointError, check_arrays, check_floats
from ..storage.files import quoted, reading

STRUCTURE = "structure"  # the array by which a file of this format is known
DTYPES = {"weight": np.int8, "bias": np.int32, "w_scales": np.float32}
PIXEL_SCALE = 1 / 127.5
PARTS = {"pointwise1": "expand", "depthwise": "depthwise", "pointwise2": "project"}


def read_structure(arrays: Mapping[str, np.ndarray], what: str) -> dict:
    """The JSON object; CheckpointError where there is none."""
    wrong = "is no JSON object with first_conv, blocks and classifier"
    with reading(f"the structure of {what}", CheckpointError, wrong):
        structure = json.loads(str(arrays[STRUCTURE]))
        if not (isinstance(structure["blocks"], list) and structure["first_conv"] and structure["classifier"]):
            raise ValueError("it holds no convolutions")
        return structure


def convolutions(structure: Mapping) -> dict[str, dict]:
    """Entry of each convolution and of the classifier, by the name of our node, in the order of the net."""
    entries = {"stem": structure["first_conv"]}
    for i, block in enumerate(structure["blocks"], start=1):
        for part, ours in PARTS.items():
            if block.get(part):
                entries[f"block{i}.{ours}"] = block[part]
    return entries | {"fc": structure["classifier"]}


def from_int8(
    arrays: Mapping[str, np.ndarray],
    classes: int | None = None,
    size: tuple[int, int] | None = None,
    what: str = "the quantized net",
) -> Graph:
    """The net `mobilenet_folded` with the dequantized weights of `arrays`, float32.

    classes: default those of the arrays; with another number the classifier starts from the seed. size: (H, W), default
    that of the structure. what: how messages call the arrays. Raises CheckpointError that names what the structure has
    that our net has not, or the first array that is missing, has another shape or dtype, or is not known.
    """
    whole, entries, keys = described(arrays, size, what)
    own = whole.shape(whole.output)[1]
    graph = whole if classes in (None, own) else build(whole.name, classes=classes, size=whole.size, **whole.options)
    for node, entry in entries.items():
        if node == "fc" and graph is not whole:
            continue
        x_scale = float(entry["params"]["x_scale"])
        weight, bias, w_scales = (arrays[keys[node, a]].astype(np.float64) for a in DTYPES)
        w, b = weight * w_scales[:, None, None, None], bias * w_scales * x_scale
        check_floats({f"the weight of {node}": w, f"the bias of {node}": b}, what)
        w = w.transpose(2, 3, 1, 0).astype(np.float32)
        graph.weights[f"{node}.w"] = np.ascontiguousarray(w.reshape(graph.parameters[f"{node}.w"].shape))
        graph.weights[f"{node}.b"] = b.astype(np.float32)
    return graph


def described(
    arrays: Mapping[str, np.ndarray], size: tuple[int, int] | None, what: str
) -> tuple[Graph, dict[str, dict], dict[tuple[str, str], str]]:
    """Our float net of a file without its weights, what the structure says of each of `convolutions`, and its arrays.

    The arrays by (name of our node, one of DTYPES): their keys. CheckpointError as in `from_int8`.
    """
    structure = read_structure(arrays, what)
    with reading(f"the structure of {what}", CheckpointError, "is damaged"):
        graph, entries = _graph(structure, size, what), convolutions(structure)
        keys = {(node, a): entries[node]["params"][a]["array"] for node in entries for a in DTYPES}
        for entry in entries.values():
            float(entry["params"]["x_scale"])
        _check_zero_points(entries, what)
        _check(arrays, graph, keys, what)
    return graph, entries, keys


def _graph(structure: Mapping, size: tuple[int, int] | None, what: str) -> Graph:
    """Our net of a structure, without weights; CheckpointError where it has something that ours has not."""
    first, blocks = structure["first_conv"], structure["blocks"]
    if structure.get("feature_mix"):
        raise CheckpointError(f"the structure of {what} has a feature_mix, which mobilenet_folded does not have")
    rows = [(b["depthwise"]["in_channel"], b["depthwise"]["kernel_size"][0], b["depthwise"]["stride"],
             b["pointwise2"]["out_channel"]) for b in blocks]  # fmt: skip
    g = build(
        "mobilenet_folded",
        classes=structure["classifier"]["out_channel"],
        size=size or (first["in_shape"], first["in_shape"]),
        stem=first["out_channel"],
        blocks=rows,
    )
    entries, nodes = convolutions(structure), {n.name: n for n in g.nodes}
    for i, block in enumerate(blocks, start=1):
        if block.get("se"):
            raise CheckpointError(f"block {i - 1} of {what} has a squeeze-and-excitation, which mobilenet_folded lacks")
        if bool(block["residual"]) != (f"block{i}.add" in nodes):
            has, would = ("a residual", "none") if block["residual"] else ("no residual", "one")
            raise CheckpointError(f"block {i - 1} of {what} has {has}, but mobilenet_folded would have {would}")
    for name, node in nodes.items():
        if node.op == "conv2d":
            r, s, depth, _ = g.parameters[f"{name}.w"].shape
            wanted = ([r, s], node.attrs["stride"][0], g.shape(node.inputs[0])[3] // depth)
            if name not in entries:
                raise CheckpointError(f"the structure of {what} lacks the convolution {name}")
            stated = tuple(entries[name][key] for key in ("kernel_size", "stride", "groups"))
            if stated != wanted:
                raise CheckpointError(
                    f"{name} of {what} has kernel, stride, groups {quoted(stated)}, but mobilenet_folded has {wanted}"
                )
    return g


def _check_zero_points(entries: Mapping[str, dict], what: str) -> None:
    """CheckpointError unless the input is scaled as we scale it and ReLU6 stands where our net has it."""
    p = entries["stem"]["params"]
    if not math.isclose(p["x_scale"], PIXEL_SCALE, rel_tol=1e-6) or p["x_zero"] != 0:
        scaling = f"x_scale {quoted(p['x_scale'])} and x_zero {quoted(p['x_zero'])}"
        raise CheckpointError(f"{what} takes pixels with {scaling}, but 1/127.5 and 0 are supported")
    for name, entry in entries.items():
        zero, rectified = entry["params"]["y_zero"], name.endswith(("stem", "expand", "depthwise"))
        if rectified and zero != -128:
            raise CheckpointError(f"{name} of {what} has y_zero {quoted(zero)}, but -128 is needed: ReLU6 follows it")


def _check(arrays: Mapping[str, np.ndarray], graph: Graph, keys: Mapping[tuple[str, str], str], what: str) -> None:
    """CheckpointError unless `arrays` are those that the graph needs, in the file's layout and dtypes."""
    shapes = {}
    for (node, a), key in keys.items():
        shape = graph.parameters[f"{node}.w"].shape
        r, s, c, k = shape if len(shape) == 4 else (1, 1, *shape)
        shapes[key] = (k, c, r, s) if a == "weight" else (k,)
    check_arrays({n: a for n, a in arrays.items() if n != STRUCTURE}, shapes, what)
    for (_, a), key in keys.items():
        held, wanted = arrays[key].dtype, np.dtype(DTYPES[a])
        if held != wanted:
            raise CheckpointError(f"{quoted(key)} of {what} holds {held}, but {wanted} is needed")
    check_floats({quoted(key): arrays[key] for (_, a), key in keys.items() if a == "w_scales"}, what)


__all__ = ["DTYPES", "STRUCTURE", "convolutions", "described", "from_int8", "read_structure"]
