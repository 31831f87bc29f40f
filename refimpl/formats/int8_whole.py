"""Quantized microcontroller nets (`int8_nets`) as they are stored: a net of whole numbers with the file's own scales.

Each map is int8 with the scale and the zero point that the file states, sums are of 32 bits, and the padding is the
zero point of its map. From the file's scales follow, in float64 and rounded once to 31 bits as TensorFlow Lite does
(`kernels.requantize.fixed`),

    multiplier[k], shift[k]   of x_scale·w_scales[k]/y_scale      each convolution (`quantized_conv2d`)
    three pairs               of the scales of both branches      each residual sum (`quantized_add`)
    multiplier, shift         of 1/(H·W)                          the mean, which keeps the scale of its map

A pixel from 0 to 255 enters as the int8 number pixel − 128, exactly: the input is int8, and `pixels` of the graph says
(−128, 127). In real numbers that is (pixel − 128)/127.5, half a step below pixel/127.5 − 1, which the float net takes:
with the zero point 0 of the file that lies in the middle between two whole numbers.

Readings beyond the file:
  [ours] The upper end of ReLU6 is what stands for 6 where int8 holds it, y_zero + round(6/y_scale), else 127. In both
         nets of arXiv 2206.15472 y_scale is 6/255 at most, so it is 127 in all their rectified maps: 6 itself where
         y_scale is 6/255, less where it is finer.
  [ours] That paper's code rounds sum·scale in floating point and adds branches as floats; in their place stand the
         whole numbers of TensorFlow Lite.
  [ours] A bias that was cut off at the ends of int32, as those of channels whose weights are nearly all 0, is moved
         towards 0 until no sum leaves int32 whatever weights training makes (`ops.quantized_sgd`), or else with those
         that are stored: only where the channel's output is then one and the same number, with the bias as stored in
         wider sums and with the moved one. So no output differs from that of wider sums.
  [ours] Logits are left in 32 bits, of the scale x_scale·w_scales[k], and made floats for the loss, as
         `surgery.quantize` leaves them: y_scale and y_zero of the classifier, which round them to 8, are not used.
"""

import math
from collections.abc import Mapping

import numpy as np

from ..graph import INPUT, Graph
from ..storage.checkpoint import CheckpointError
from ..storage.files import quoted, reading
from ..surgery.quantize import INT8, MapScale, Weighted
from .int8_nets import DTYPES, described, read_structure
from .whole_net import finished, fitting

NEAR = 1e-6  # relative distance of two statements of one scale


def whole_from_int8(
    arrays: Mapping[str, np.ndarray],
    classes: int | None = None,
    size: tuple[int, int] | None = None,
    what: str = "the quantized net",
    twice: bool = False,
) -> Graph:
    """The net in whole numbers with the weights of `arrays`; its nodes are called as those of `from_int8`.

    Input (N, *size, 3) int8, pixel − 128; output (N, classes) floats. classes, size: default those of the arrays. With
    another number of classes the classifier is a linear layer of floats on the features made floats, which starts from
    the seed: gradients end where numbers are whole, so that it is what back-propagation can train, and a classifier of
    whole numbers would need the range of its weights before they are learnt. twice: round as gemmlowp does
    (`kernels.requantize`). what: how messages call the arrays.

    CheckpointError as `from_int8`, and where two nodes state different scales of a map, a scale is not above 0 or too
    far from another, a zero point does not fit into int8, or a sum might not fit into int32.
    """
    graph, entries, keys = described(arrays, size, what)
    structure = read_structure(arrays, what)
    classifier = graph.nodes[-1].name
    own = classes is None or classes == graph.shape(graph.output)[1]
    with reading(f"the structure of {what}", CheckpointError, "is damaged"):
        scales = _scales(graph, entries, structure["blocks"], what)
        layers = {
            node: _layer(graph, node, scales, {a: arrays[keys[node, a]] for a in DTYPES})
            for node in entries
            if own or node != classifier
        }
    new = finished(graph, scales, layers, what, None if own else classes, twice)
    new.pixels = (float(INT8.min), float(INT8.max))
    return new


def _scales(graph: Graph, entries: Mapping[str, dict], blocks: list[dict], what: str) -> dict[str, MapScale]:
    """The scale of each tensor of the float net; CheckpointError where two statements of one differ."""
    scales: dict[str, MapScale] = {INPUT: _stated(entries["stem"]["params"], "x", "stem", what)}
    sums = iter(block["residual"]["params"] for block in blocks if block["residual"])
    for node in graph.nodes:
        read = node.inputs[-1]  # of a sum the shortcut
        params = entries[node.name]["params"] if node.name in entries else next(sums) if node.op == "add" else None
        if params is None:  # a rectifier or the mean: the scale of its map
            scales[node.name] = scales[read]
            continue
        x = _stated(params, "x", node.name, what)
        if not math.isclose(x.value, scales[read].value, rel_tol=NEAR) or x.zero != scales[read].zero:
            raise CheckpointError(
                f"{node.name} of {what} takes {read} with scale {x.value:g} and zero point {x.zero}, but it is made "
                f"with {scales[read].value:g} and {scales[read].zero}"
            )
        scales[node.name] = _stated(params, "y", node.name, what)
    return scales


def _stated(params: Mapping, side: str, name: str, what: str) -> MapScale:
    """The scale of the input ("x") or the output ("y") of a node; CheckpointError where it is none."""
    value, zero = params[f"{side}_scale"], params[f"{side}_zero"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{name} of {what} has {side}_scale {quoted(value)}, but a number above 0 is needed")
    if isinstance(zero, bool) or not isinstance(zero, int) or not INT8.min <= zero <= INT8.max:
        raise CheckpointError(
            f"{name} of {what} has {side}_zero {quoted(zero)}, but a whole number from {INT8.min} to {INT8.max} is "
            "needed"
        )
    return MapScale(float(value), zero)


def _layer(graph: Graph, node: str, scales: Mapping[str, MapScale], arrays: Mapping[str, np.ndarray]) -> Weighted:
    """Weights in our layout, bias and scales of a layer, of its `arrays` in the file."""
    x, w_scale = scales[graph.node(node).inputs[0]], arrays["w_scales"]
    w = arrays["weight"].transpose(2, 3, 1, 0).reshape(graph.parameters[f"{node}.w"].shape)
    b, b_scale = arrays["bias"].astype(np.int64), x.value * w_scale.astype(np.float64)
    if node != graph.output:
        b = fitting(w, b, (INT8.min - x.zero, INT8.max - x.zero), b_scale, scales[node])
    return Weighted(np.ascontiguousarray(w), w_scale, b, b_scale.astype(np.float32))


__all__ = ["whole_from_int8"]
