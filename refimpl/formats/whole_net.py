"""A quantized net of another program as one of whole numbers, with the file's own scales and zero points.

The net comes as a graph of floats in which every place where a map becomes whole numbers is a node of its own, a
`mark`; with what its weights are, (q − zero)·scale. In the net that is made there is no such node: what stands before a
mark gives its whole numbers at once (`surgery.quantize.stored`), and

    q = saturated(round(x/scale) + zero)      of uint8 as that of int8, 128 less, which stands for the same number
    multiplier[k], shift[k]                   of x_scale·w_scale[k]/y_scale, rounded once to 31 bits

A map that is quantized again by another scale is requantized, as a concatenation of one map. Weights of uint8 or with
a zero point are w − zero: int8 where they fit, else int16, exactly.

Readings beyond the files:
  [ours] Where an output is the sums of a linear layer, they are left in 32 bits and made floats, as
         `surgery.quantize` leaves them: the last mark, which would round scores to 8 bits, is not used.
  [ours] A mean of windows keeps the scale of its map, as TensorFlow Lite has it; by another scale of the file it is
         rounded a second time.
  [ours] A bias of floats becomes the whole number nearest to bias/(x_scale·w_scale[k]), as does one of another scale.
  [ours] A bias at the ends of int32 is moved towards 0 where no output becomes another (`fitting`).
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..graph import INPUT, Graph, Node
from ..kernels.quantized import sum_ends
from ..ops import quantized_sgd
from ..storage.checkpoint import CheckpointError
from ..storage.files import quoted
from ..surgery.quantize import FORMS, INT8, INT32, RECTIFIERS, MapScale, Weighted, stored

KINDS = ("int8", "uint8")  # dtypes of maps that are read
ROUNDED = ("avg_pool",)  # operators that keep a scale, but not the steps of it
MARGIN = 0.01  # steps of a map, more than what two ways to round differ by where so large sums are not saturated
FITS = 1e-6  # relative room for the rounding of a scale that just fits
NEAR = 1e-5  # relative distance of two statements of one scale: they are of float32


class WithoutForm(CheckpointError):
    """Nodes of a net have no form in whole numbers. lacking: operator as the file calls it → how many there are."""

    def __init__(self, message: str, lacking: Mapping[str, int]):
        super().__init__(message)
        self.lacking = dict(lacking)


class WholeArray(NamedTuple):
    """Weights in our layout: (q − zero), int64 (…, K), and the scale, float32 (1,) or (K,)."""

    q: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True, eq=False)
class QuantizedNet:
    """What is known of a quantized net.

    graph: of floats, with marks. marks: node → what the whole numbers of its input stand for. arrays: parameter → its
    whole numbers; a bias that has none is one of the graph's weights. called: node → the operator of the file.
    whole_input: is the input of whole numbers, or of floats that the first mark makes some?
    """

    graph: Graph
    marks: Mapping[str, MapScale]
    arrays: Mapping[str, WholeArray]
    called: Mapping[str, str]
    whole_input: bool = False


def checked_scale(scale: np.ndarray, what: str) -> np.ndarray:
    """A scale as float64; ValueError where one of its numbers is not above 0 and finite. what: how it is called."""
    found = np.asarray(scale, np.float64)
    if not found.size:
        raise ValueError(f"{what} is empty")
    if not (np.isfinite(found) & (found > 0)).all():
        wrong = found[~(np.isfinite(found) & (found > 0))].reshape(-1)[0]
        raise ValueError(f"{what} is {wrong:g}, but a number above 0 is needed")
    return found


def map_scale(scale: np.ndarray, zero: np.ndarray, what: str) -> MapScale:
    """What the int8 numbers of a map stand for, of one scale and one zero point of int8 or uint8.

    ValueError where it is none. what: how messages call it.
    """
    if zero.dtype.name not in KINDS:
        raise ValueError(f"{what} is of {zero.dtype}, but maps of {' and '.join(KINDS)} have a form in whole numbers")
    if np.size(scale) != 1 or np.size(zero) != 1:
        raise ValueError(f"{what} has {np.size(scale)} scales and {np.size(zero)} zero points, but a map has one")
    value = float(checked_scale(scale, f"the scale of {what}").reshape(-1)[0])
    return MapScale(value, int(zero.reshape(-1)[0]) - (128 if zero.dtype == np.uint8 else 0))


def near(a: float, b: float) -> bool:
    """Are two statements of a scale one?"""
    return math.isclose(a, b, rel_tol=NEAR)


def whole_net(net: QuantizedNet, what: str, classes: int | None = None, twice: bool = False) -> Graph:
    """The net in whole numbers. classes: default its own; what, twice: as in `int8_whole.whole_from_int8`.

    WithoutForm where operators have none, CheckpointError where something is not quantized, or a sum might not fit into
    int32.
    """
    check_forms(net, what)
    bare, scales = without_marks(net, what)
    classifier = bare.nodes[-1]
    own = classes is None or classes == bare.shape(bare.output)[-1]
    if not own and (classifier.op != "linear" or classifier.name != bare.output):
        raise CheckpointError(
            f"{what} ends with {net.called.get(classifier.name, classifier.op)}, which gets no other classes: only a "
            "linear layer does"
        )
    skipped = {classifier.name} if not own else set()
    layers = {
        node.name: layer(net, bare, node, scales, what)
        for node in bare.needed()
        if node.params and node.name not in skipped
    }
    return finished(bare, scales, layers, what, None if own else classes, twice, not net.whole_input)


def finished(
    graph: Graph, scales: Mapping[str, MapScale], layers: Mapping[str, Weighted], what: str, classes: int | None,
    twice: bool = False, floats: bool = False,
) -> Graph:  # fmt: skip
    """`surgery.quantize.stored` of a net whose last node is its classifier.

    classes: of a new classifier in its place, a linear layer of floats on the features made floats, which starts from
    the seed; None leaves it. floats: is the input of floats? CheckpointError where a sum might not fit into int32.
    """
    classifier = graph.nodes[-1]
    if classes is not None:
        graph.outputs = (classifier.inputs[0],)
    try:
        new = stored(graph, scales, layers, twice, floats)
    except ValueError as e:
        raise CheckpointError(f"{what} does not fit into whole numbers: {e}") from None
    if classes is not None:
        new.outputs = (new.linear(classifier.name, new.output, classes, "b" in classifier.params),)
    return new


def check_forms(net: QuantizedNet, what: str) -> None:
    """WithoutForm, which names all of them, where operators have no form in whole numbers."""
    known = {*FORMS, *RECTIFIERS}
    lacking = Counter(
        net.called.get(node.name, node.op)
        for node in net.graph.needed()
        if node.op not in known and node.name not in net.marks
    )
    if lacking:
        each = ", ".join(f"{quoted(op)} ({count})" for op, count in lacking.items())
        raise WithoutForm(f"{what} cannot be one of whole numbers: there is no form of them for {each}", lacking)


def without_marks(net: QuantizedNet, what: str) -> tuple[Graph, dict[str, MapScale]]:
    """The graph without marks, and the scale of its input and of every tensor that `stored` asks for one.

    CheckpointError where a node takes a map that no mark made whole numbers of.
    """
    graph = net.graph
    readers: dict[str, list[Node]] = {}
    for node in graph.needed():
        for tensor in node.inputs:
            readers.setdefault(tensor, []).append(node)
    new = graph.bare()
    new.weights, new._outputs = {}, ()
    now = {INPUT: INPUT}  # tensor of the graph → of the new one
    whole: set[str] = set()  # tensors of the graph whose numbers are whole ones of a scale
    scales: dict[str, MapScale] = {}
    passed: dict[str, str] = {}  # tensor of the new graph that has no scale yet → the one whose steps it has

    def marked(tensor: str, scale: MapScale) -> None:
        scales[tensor] = scale
        if tensor in passed and passed[tensor] not in scales:
            marked(passed[tensor], scale)

    def requantized(name: str, tensor: str, scale: MapScale) -> str:
        made = new.concat(name, tensor)
        scales[made] = scale
        return made

    for node in graph.needed():
        source = node.inputs[0]
        if node.name in net.marks:
            wanted, tensor = net.marks[node.name], now[source]
            if tensor not in scales:
                marked(tensor, wanted)
            elif not same(scales[tensor], wanted):
                tensor = requantized(node.name, tensor, wanted)
            now[node.name] = tensor
            whole.add(node.name)
            continue
        inputs = [now[t] for t in node.inputs]
        rectifies, kept = node.op in RECTIFIERS, node.op in FORMS and not FORMS[node.op].scales
        waits = rectifies or kept and node.op not in ROUNDED  # what follows it may say its scale
        if floats := [t for t in node.inputs if t not in whole and not (waits and t not in graph.inputs)]:
            said = net.called.get(node.name, node.op)
            raise CheckpointError(
                f"{node.name} ({said}) of {what} takes {floats[0]} in floats: nothing quantizes it before, so that the "
                "net cannot be one of whole numbers"
            )
        if rectifies and source in whole:
            after = [net.marks[r.name] for r in readers.get(node.name, []) if r.name in net.marks]
            held = scales[inputs[0]]
            alone = sum(r.name not in net.marks for t in now if now[t] == inputs[0] for r in readers.get(t, ())) == 1
            joins = inputs[0] != INPUT and new.node(inputs[0]).op in FORMS and FORMS[new.node(inputs[0]).op].rectifies
            if not alone or not joins or any(not same(held, scale) for scale in after):
                inputs[0] = requantized(f"{node.name}.steps", inputs[0], after[0] if after else held)
        now[node.name] = new.copy_node(graph, node, inputs)
        if rectifies and source in whole:
            scales[node.name] = scales[inputs[0]]
            whole.add(node.name)
        elif kept and inputs[0] in scales:
            scales[node.name] = scales[inputs[0]]
            if node.op not in ROUNDED:
                whole.add(node.name)
        elif kept:
            passed[node.name] = inputs[0]
    new.outputs = tuple(now[t] for t in graph.outputs)
    return new, scales


def in_8_bits(
    w: np.ndarray, scale: np.ndarray, ends: tuple[int, int], new: bool
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The scale, float32 (1,) or (K,), and whole numbers, int64, of weights (…, K), float64.

    scale: that of the file, which is kept where the weights fit; ends: of the whole numbers; new: is it another layer
    than the file's, whose scale then does not matter?
    """
    flat = w.reshape(-1, w.shape[-1])
    least = np.maximum(flat.max(0) / ends[1], flat.min(0) / ends[0])  # with which the largest fits
    least = np.where(least > 0, least, np.finfo(np.float32).tiny)
    if scale.size == 1:
        least = least.max(keepdims=True)
    found = least if new else np.maximum(scale.reshape(-1).astype(np.float64), least / (1 + FITS))
    found = found.astype(np.float32)
    return found, np.rint(w / found.astype(np.float64)).clip(*ends).astype(np.int64)


def in_32_bits(b: np.ndarray, x_scale: float, w_scale: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale, float32 (1,) or (K,), and whole numbers, int64, of a bias (K,), float64, in steps of its sums.

    scale: that of the file, which is kept where it is near to x_scale·w_scale.
    """
    found = np.resize(x_scale * w_scale.astype(np.float64), b.shape if scale.size > 1 else (1,))
    if found.size == scale.size:
        found = np.where(np.isclose(found, scale.reshape(-1), rtol=NEAR, atol=0), scale.reshape(-1), found)
    found = found.astype(np.float32)
    return found, np.rint(b / found.astype(np.float64)).clip(-INT32.max, INT32.max).astype(np.int64)


def real(graph: Graph, name: str) -> np.ndarray:
    """The numbers, float64, that a parameter stands for."""
    held = graph.parameters[name].quantized
    array = graph.weights[name].astype(np.float64)
    return array * graph.weights[held.scale] if held else array


def same(a: MapScale, b: MapScale) -> bool:
    """Do whole numbers stand for the same by both?"""
    return a.zero == b.zero and near(a.value, b.value)


def layer(net: QuantizedNet, graph: Graph, node: Node, scales: Mapping[str, MapScale], what: str) -> Weighted:
    """Whole weights and bias of a layer; CheckpointError where the file has none, or its map gets no scale."""
    x, called = scales[node.inputs[0]], f"{node.name} ({net.called.get(node.name, node.op)}) of {what}"
    if node.params["w"] not in net.arrays:
        raise CheckpointError(f"{called} has weights of floats: only quantized ones can be whole numbers")
    w, w_scale = net.arrays[node.params["w"]]
    kind = np.int8 if INT8.min <= w.min() and w.max() <= INT8.max else np.int16
    w_scale = np.ascontiguousarray(np.broadcast_to(w_scale, w.shape[-1:]))
    exact = x.value * w_scale.astype(np.float64)
    b, b_scale = None, exact.astype(np.float32)
    if (name := node.params.get("b")) is not None:
        b, held = as_sums(net.arrays.get(name), net.graph.weights[name], exact)
        b_scale = b_scale if held is None else np.broadcast_to(held, b_scale.shape)
    if node.name not in graph.outputs:
        end = next((r.name for r in graph.nodes if r.op in RECTIFIERS and node.name in r.inputs), node.name)
        y = scales.get(node.name) or scales.get(end)
        if y is None:
            raise CheckpointError(f"{called} gives floats: nothing quantizes what it gives")
        if b is not None:
            b = fitting(w, b, (INT8.min - x.zero, INT8.max - x.zero), exact, y)
    return Weighted(np.ascontiguousarray(w.astype(kind)), w_scale, b, np.ascontiguousarray(b_scale))


def as_sums(whole: WholeArray | None, real: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """A bias, int64 (K,), in steps of the sums, and its own scale where that is near to theirs.

    whole: as the file has it, None where it is of floats, `real` (K,); scale: of the sums, float64 (1,) or (K,).
    """
    if whole is not None and np.allclose(whole.scale, scale, rtol=NEAR, atol=0):
        return whole.q, whole.scale
    value = real.astype(np.float64) if whole is None else whole.q * whole.scale.astype(np.float64)
    return np.rint(value / scale).clip(-(2.0**62), 2.0**62).astype(np.int64), None


def fitting(w: np.ndarray, b: np.ndarray, ends: tuple[int, int], scale: np.ndarray, y: MapScale) -> np.ndarray:
    """Biases (K,), moved towards 0 where a sum might leave int32 and the output is one number whatever the input is.

    w: (…, K); ends: of x − x_zero; scale: (1,) or (K,) of the sums. The others are left as they are.
    """
    least, most = sum_ends(w, ends)
    trained = quantized_sgd.end(np.dtype(np.int32), w[..., 0].size)
    for moved in (b.clip(-INT32.max - least, INT32.max - most), b.clip(-trained, trained)):
        low, high = (np.minimum(b, moved) + least) * scale / y.value, (np.maximum(b, moved) + most) * scale / y.value
        of_low, of_high = (
            np.floor(steps + 0.5 + y.zero).clip(INT8.min, INT8.max) for steps in (low - MARGIN, high + MARGIN)
        )
        b = np.where(of_low == of_high, moved, b)
    return b


__all__ = [
    "QuantizedNet", "WholeArray", "WithoutForm", "checked_scale", "finished", "fitting", "in_8_bits", "in_32_bits",
    "map_scale", "real", "whole_net",
]  # fmt: skip
