"""A net of whole numbers whose weights of 8 bits train: widened to 16 bits, in finer steps, with the same results.

An ε of forward gradients is less than half a step of weights of 8 bits, so that they stand still, as published
(arXiv 2411.04036). Here each output channel of a layer that trains gets steps 2^j times finer, j up to 8:

    w' = 2^j·w, int16    w_scale' = w_scale/2^j    b' = 2^j·b    b_scale' = b_scale/2^j    shift' = shift − j

The sums are 2^j times as large, exactly, and rounding once gives the same numbers: whatever the input is, every map is
that of the net before, to the bit, and so are the logits, for a float divided by a power of two keeps its digits.
Layers that do not train stay as they are, and so does their memory.

Our readings: j is the largest by which the largest weight can grow by `headroom` before it meets the end that its sums
allow (`kernels.quantized.MapEnds`), and the bias stays within BIAS_END. Of weights up to 127 it is 7 where a sum has up
to 302 products with a map that uses all of 8 bits, then 6; never 8, with which they could not grow. A bias beyond
BIAS_END, as those of channels that are one number whatever the input is, gets coarser steps (j < 0) where every sum
then still gives that number. Rounding twice (`twice`) rounds finer sums otherwise, and is refused.

A classifier of floats, as a net gets that is to tell other classes, becomes one of whole numbers of `bits`: it starts
from what the seed draws, and its weights can grow to RANGE standard deviations of what He et al. would draw, √(2/D) of
D features. The largest weights of the two microcontroller nets' own classifiers are 4.4 of them.
"""

import math
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from ..compiler.compile import compile
from ..graph import Graph, Node, Parameter
from ..kernels.quantized import BIAS_END, INT8, MapEnds, Quantized, sum_ends
from ..kernels.requantize import MOST_SHIFT, single
from ..training.state import initial

MOST = 8  # of j: 256 times finer
RANGE = 8.0  # of a new classifier's weights, in standard deviations


def widen(graph: Graph, trained: Collection[str], bits: int = 16, headroom: float = 1.5, seed: int = 0) -> Graph:
    """The net of whole numbers, with weights, whose nodes `trained` have weights of `bits`: 16, or 8 as they are.

    The graph itself where they have. headroom: by how much weights can grow at least; seed: what a classifier starts
    from that has no weights yet. ValueError where a layer cannot be widened without another result.
    """
    chosen = [node for node in graph.needed() if node.name in trained]
    narrow = [node for node in chosen if bits > 8 and _of_8_bits(graph, node)]
    floats = {node.name: source for node in chosen if (source := _source(graph, node))}
    if not narrow and not floats:
        return graph
    new, weights, widened = graph.bare(), dict(graph.weights), {}
    new.name, new._outputs = f"{graph.name.removesuffix(' 8w8a')} {bits}w8a", ()
    for node in narrow:
        widened |= _widened(weights, graph, node, headroom)
    left = {graph.node(name).inputs[0] for name in floats}
    left = {t for t in left if all(n.name in floats for n in graph.nodes if t in n.inputs)}
    for node in graph.needed():
        if node.name in floats:
            _classifier(new, weights, graph, node, floats[node.name], bits, headroom, seed)
        elif node.name not in left:
            new.copy_node(graph, node, node.inputs, widened)
    new.weights = {name: array for name, array in weights.items() if name in new.parameters}
    new.outputs = tuple(f"{t}.real" if t in floats else t for t in graph.outputs)
    return new


def _of_8_bits(graph: Graph, node: Node) -> bool:
    """Does a node sum products with int8 weights?"""
    w = node.params.get("w")
    return w is not None and graph.parameters[w].dtype == np.int8 and "x_zero" in node.operator.defaults


def _source(graph: Graph, node: Node) -> str | None:
    """The int8 tensor whose real numbers a classifier of floats reads; None where a node is no such classifier."""
    made = graph.tensors[node.inputs[0]].producer
    if node.op != "linear" or node.name not in graph.outputs or made is None or graph.node(made).op != "dequantize":
        return None
    source = graph.tensors[graph.node(made).inputs[0]]
    return source.name if source.dtype == np.int8 and not any(node.name in n.inputs for n in graph.nodes) else None


def _widened(weights: dict[str, np.ndarray], graph: Graph, node: Node, headroom: float) -> dict[str, Parameter]:
    """Widen a node's weights, bias and scales in `weights`; its new parameters by name."""
    names, attrs = dict(node.params), {**node.operator.defaults, **node.attrs}
    held = graph.parameters[names["w"]]
    if held.quantized is None:
        raise ValueError(f"{names['w']} of {graph.name} has no scale, so that it has no finer one")
    w = weights[names["w"]].astype(np.int64)
    b = weights[names["b"]].astype(np.int64) if "b" in names else np.zeros(w.shape[-1], np.int64)
    sums = MapEnds(math.prod(w.shape[:-1]), attrs["x_zero"])
    end = min(np.iinfo(np.int16).max, sums.weight_end)
    j = _finer(np.abs(w).reshape(-1, w.shape[-1]).max(0) * headroom, end, MOST)
    j = np.minimum(j, _finer(np.abs(b), BIAS_END, MOST))
    if "shift" in names:
        j = np.minimum(j, weights[names["shift"]] + MOST_SHIFT)
    if attrs["twice"] and j.any():
        raise ValueError(f"node {node.name} of {graph.name} rounds twice: finer weights would give another result")
    scale = weights[held.quantized.scale]
    if len(scale) == 1:
        j = np.broadcast_to(j.min(), j.shape)
    wide, moved = _shifted(w, j), _shifted(b, j)
    for k in map(int, np.flatnonzero(j < 0)):
        before, after = (
            _numbers(weights, node, attrs, w, b, k, 0),
            _numbers(weights, node, attrs, wide, moved, k, int(j[k])),
        )
        if before is None or after != before:
            raise ValueError(
                f"channel {k} of node {node.name} of {graph.name} cannot be widened: its bias of {b[k]:,} leaves no "
                f"room beside products, for a sum that trains must stay within int32; a layer that does not train may"
            )
    weights[names["w"]] = np.ascontiguousarray(wide.astype(np.int16))
    for local, values in (("w", None), ("b", moved)):
        if local not in names:
            continue
        q = graph.parameters[names[local]].quantized
        if values is not None:
            weights[names[local]] = values.astype(np.int32)
        if q is not None:
            weights[q.scale] = np.ldexp(weights[q.scale], -j[: len(weights[q.scale])]).astype(np.float32)
    if "shift" in names:
        weights[names["shift"]] = (weights[names["shift"]] - j).astype(np.int32)
    return {names["w"]: replace(held, dtype=np.dtype(np.int16))}


def _finer(largest: np.ndarray, end: int, most: int) -> np.ndarray:
    """The largest j of each entry, int64, at most `most`, with which 2^j times it is at most `end`."""
    return np.minimum(np.floor(np.log2(end / np.maximum(largest, 1e-9))), most).astype(np.int64)


def _shifted(values: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Whole numbers (…, K) times 2^j[k], to the nearest, a half upwards where j is below 0."""
    up, down = np.maximum(j, 0), np.maximum(-j, 0)
    return ((values << up) + (1 << down >> 1)) >> down


def _numbers(weights, node: Node, attrs: dict, w: np.ndarray, b: np.ndarray, k: int, j: int) -> int | None:
    """The one number that a channel's output is whatever the input is; None where it may be others.

    w, b: with sums 2^j times those that the node's own multiplier and shift are for.
    """
    if "shift" not in node.params:
        return None
    ends = (INT8.min - attrs["x_zero"], INT8.max - attrs["x_zero"])
    multiplier, shift = (int(weights[node.params[local]][k]) for local in ("multiplier", "shift"))
    found = [
        min(
            max(int(single(int(s[k] + b[k]), multiplier, shift - int(j))) + attrs["y_zero"], attrs["low"]),
            attrs["high"],
        )
        for s in sum_ends(w, ends)
    ]
    return found[0] if found[0] == found[1] else None


def _classifier(
    new: Graph, weights: dict[str, np.ndarray], graph: Graph, node: Node, source: str, bits: int, headroom: float,
    seed: int,
) -> None:  # fmt: skip
    """Append a classifier of whole numbers on the int8 tensor `source` in the place of one of floats."""
    drawn = initial(compile(graph, None, 1), seed)
    w = drawn[node.params["w"]].astype(np.float64)
    q = graph.tensors[source].quantized
    if q is None:
        raise ValueError(f"{source} of {graph.name} has no scale, so that no classifier of whole numbers can read it")
    x_scale = np.float64(graph.weights[q.scale][0])
    zero = int(graph.weights[q.zero_point][0]) if q.zero_point else 0
    sums = MapEnds(w.shape[0], zero)
    dtype = np.dtype(np.int16 if bits > 8 else np.int8)
    end = min(2 ** (bits - 1) - 1, sums.weight_end)
    reach = max(RANGE * math.sqrt(2 / w.shape[0]), headroom * np.abs(w).max())
    w_scale = np.array([reach / end], np.float32)
    b_scale = (x_scale * w_scale.astype(np.float64)).astype(np.float32)
    scales = {local: f"{node.name}.{local}_scale" for local in ("w", "b")}
    for name, value in ((scales["w"], w_scale), (scales["b"], b_scale)):
        weights[name] = value
        new.add_parameter(name, Parameter((1,), "ones"))
    params = {"w": Parameter(w.shape, "he", w.shape[0], dtype=dtype, quantized=Quantized(scales["w"]))}
    weights[f"{node.name}.w"] = np.rint(w / w_scale.astype(np.float64)).clip(-end, end).astype(dtype)
    if "b" in node.params:
        b, held = drawn[node.params["b"]].astype(np.float64), Quantized(scales["b"])
        params["b"] = Parameter(b.shape, "zeros", dtype=np.dtype(np.int32), quantized=held)
        weights[f"{node.name}.b"] = np.rint(b / b_scale.astype(np.float64)).clip(-BIAS_END, BIAS_END).astype(np.int32)
    new.add_node(node.name, "quantized_linear", (source,), {"x_zero": zero}, params, {"sums": Quantized(scales["b"])})
    new.add_node(f"{node.name}.real", "dequantize", (f"{node.name}.sums",), {"zero": 0}, {"scale": scales["b"]})
