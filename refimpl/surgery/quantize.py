"""A trained float net as one of whole numbers: int8 maps, int8 or int16 weights, int32 sums, and the same node names.

Each convolution takes in the batch norm behind it, and every node the rectifier behind it, as saturation. A weight
tensor has one scale, Δw = max|w| / (2^(bits−1) − 1) (arXiv 2411.04036 eq. (5)), or one for each output channel; a map
has one, found on calibration samples: symmetric, max|x|/127, or with a zero point, (max − min)/255 where the range
holds 0 (TensorFlow Lite's convention). Biases are int32 of the scale x_scale·w_scale.

Our readings: the graph's input stays of floats, and a node `quantize` begins the net; a linear layer that makes an
output leaves it in 32 bits, and a node `….real` makes floats of it for the loss; batch norm is fixed and dropout left
out, in training too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from .. import arguments
from ..graph import INPUT, Graph, Node, Parameter
from ..kernels.quantized import MapEnds, Quantized, largest_sum
from ..kernels.requantize import fixed, fixed_each
from ..ops import quantized_add
from .calibrate import ranges

INT8, INT32 = np.iinfo(np.int8), np.iinfo(np.int32)
STEPS = 512  # more than there are between two whole numbers of 8 bits
RECTIFIERS: dict[str, tuple[float, float]] = {  # operator → the ends of what passes, but for those that a node states
    "relu": (0.0, np.inf), "relu6": (0.0, 6.0), "clip": (-np.inf, np.inf),
}  # fmt: skip


class MapScale(NamedTuple):
    """What the whole numbers of a map stand for: value·(q − zero)."""

    value: float
    zero: int = 0


class Map(NamedTuple):
    """A tensor of the new graph, its scale, the parameters that hold this, and the ends of its whole numbers."""

    tensor: str
    scale: MapScale
    held: Quantized[str]
    low: int = INT8.min
    high: int = INT8.max

    @property
    def ends(self) -> tuple[int, int]:
        """The least and the largest q − zero."""
        return self.low - self.scale.zero, self.high - self.scale.zero


@dataclass(frozen=True)
class Group:
    """A node with what becomes one with it: the norm and the rectifier behind it."""

    node: Node
    norm: Node | None = None
    rectifier: Node | None = None

    @property
    def end(self) -> str:
        """The tensor that comes out."""
        return (self.rectifier or self.norm or self.node).name


@dataclass(frozen=True)
class Settings:
    """What `quantize` was asked for; see there."""

    bits: int
    per_channel: bool
    zero_points: bool
    headroom: float
    twice: bool


def quantize(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    samples: np.ndarray,
    bits: int = 8,
    per_channel: bool = False,
    zero_points: bool = False,
    percentile: float | None = None,
    headroom: float = 1.0,
    twice: bool = False,
    batch: int = 32,
) -> Graph:
    """The net in whole numbers, with its weights; `weights` holds every parameter of `graph`.

    samples: (M, H, W, C) floats to calibrate on, `batch` at a time. bits: of weights, 2 to 16; up to 8 they are int8,
    else int16. per_channel: a scale for each output channel. zero_points: maps get one, so that a rectified one uses
    all of 8 bits. percentile: see `calibrate.ranges`. headroom: of Δw, at least 1, so that trained weights can grow;
    above 1 no weight begins beyond the end that its sums allow (`kernels.quantized.MapEnds`), for which Δw is larger
    than (5) has it where a sum has many products.
    twice: round as gemmlowp does (`kernels.requantize`).

    ValueError names the node and its operator where it has no form in whole numbers, and says what would do where a map
    is 0 on all samples or a sum might not fit into int32 (for the weights as they are; training may make them larger).
    """
    settings = Settings(bits, per_channel, zero_points, headroom, twice)
    _check(graph, weights, settings, percentile)
    found = ranges(graph, weights, samples, _scaled(graph), percentile, batch)
    scales = {t: _scale(graph, t, ends, len(samples), zero_points) for t, ends in found.items()}
    return _Rewriting(graph, weights, settings, _bare(graph, bits), scales).run(_groups(graph))


def stored(
    graph: Graph, scales: Mapping[str, MapScale], layers: Mapping[str, "Weighted"], twice: bool = False,
    floats: bool = False,
) -> Graph:  # fmt: skip
    """The net in whole numbers of 8 bits that are known already: nothing is found.

    scales: of the graph's input and of every tensor that `quantize` would calibrate; layers: node → its whole numbers,
    with one scale for each output channel. The input is of whole numbers too unless `floats`. A map has the ends
    of int8, or those of the rectifier that became one with it. ValueError as `quantize`.
    """
    settings = Settings(8, per_channel=True, zero_points=True, headroom=1.0, twice=twice)
    new = _bare(graph, 8) if floats else Graph(f"{graph.name} 8w8a")
    return _Rewriting(graph, {}, settings, new, scales, layers, floats).run(_groups(graph))


def outline(graph: Graph, bits: int = 8, headroom: float = 1.0) -> Graph:
    """The net in whole numbers without weights and of scales that stand in, to be compiled for its costs and memory.

    These do not depend on scales. ValueError as `quantize`.
    """
    settings = Settings(bits, False, False, headroom, False)
    weights = {n: np.broadcast_to(np.float64(p.init == "ones"), p.shape) for n, p in graph.parameters.items()}
    _check(graph, weights, settings, None)
    scales = dict.fromkeys(_scaled(graph), MapScale(1 / INT8.max))
    new = _Rewriting(graph, weights, settings, _bare(graph, bits), scales).run(_groups(graph))
    new.weights = {}
    return new


def _scaled(graph: Graph) -> list[str]:
    """The tensors that get a scale of their own."""
    return [INPUT, *(group.end for group in _groups(graph) if FORMS[group.node.op].scales)]


def _check(graph: Graph, weights: Mapping[str, np.ndarray], settings: Settings, percentile: float | None) -> None:
    """ValueError where an argument or a weight is not what it must be."""
    arguments.whole("bits", settings.bits, 2)
    if settings.bits > 16:
        raise ValueError(f"bits must be from 2 to 16, got {settings.bits}")
    if not 1 <= settings.headroom < np.inf:
        raise ValueError(f"headroom must be at least 1, got {settings.headroom}")
    if percentile is not None and not 50 < percentile <= 100:
        raise ValueError(f"percentile must be above 50 and at most 100, got {percentile}")
    if graph.inputs != (INPUT,):
        raise ValueError(f"{graph.name} must have one input called {INPUT}, but has {', '.join(graph.inputs)}")
    for name, p in graph.parameters.items():
        if name not in weights or np.shape(weights[name]) != p.shape:
            raise ValueError(f"weights must hold {name} of {graph.name}, of shape {p.shape}")
        if not np.isfinite(weights[name]).all():
            raise ValueError(f"{name} of {graph.name} is not finite: it has no scale")
    if shared := [name for name, users in graph.users().items() if len(users) > 1]:
        raise ValueError(f"{shared[0]} of {graph.name} is used by several nodes: give each a copy of its own")


def _bare(graph: Graph, bits: int) -> Graph:
    new = graph.bare()
    new.name, new.weights, new._outputs = f"{graph.name} {bits}w8a", {}, ()
    return new


def _groups(graph: Graph) -> list[Group]:
    """The nodes that an output needs, with what is taken in by the one before."""
    nodes = graph.needed()
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for tensor in node.inputs:
            readers.setdefault(tensor, []).append(node)
    taken: set[str] = set()

    def follower(tensor: str, ops) -> Node | None:
        """The only reader of a tensor, if it is of one of some operators."""
        found = readers.get(tensor, [])
        if len(found) == 1 and found[0].op in ops and tensor not in graph.outputs:
            taken.add(found[0].name)
            return found[0]
        return None

    groups = []
    for node in nodes:
        if node.name in taken:
            continue
        if node.op not in FORMS:
            raise ValueError(f"node {node.name} ({node.op}) of {graph.name} has no form in whole numbers{_why(node)}")
        form = FORMS[node.op]
        norm = follower(node.name, ("batch_norm",)) if form.takes_norm else None
        rectifier = follower((norm or node).name, RECTIFIERS) if form.rectifies else None
        groups.append(Group(node, norm, rectifier))
    return groups


def _why(node: Node) -> str:
    if node.op == "batch_norm":
        return " here: a norm is folded into a convolution right before it that nobody else reads"
    if node.op in RECTIFIERS:
        return " here: a rectifier becomes one with the node right before it, which nobody else may read"
    return f"; those that have are {', '.join([*FORMS, 'batch_norm', *RECTIFIERS])}"


def _scale(graph: Graph, tensor: str, ends: tuple[float, float], samples: int, zero_points: bool) -> MapScale:
    """The scale of a map, a float32; ValueError where it is 0 everywhere."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    value = np.float32((high - low) / 255 if zero_points else max(high, -low) / INT8.max)
    if not value > 0:
        raise ValueError(
            f"{tensor} of {graph.name} is 0 on all {samples} samples, so that it has no scale: calibrate on samples of "
            f"which one makes it at least {np.finfo(np.float32).tiny * INT8.max:.1g}"
        )
    zero = round(min(max(INT8.min - low / float(value), INT8.min), INT8.max)) if zero_points else 0
    return MapScale(float(value), zero)


def weight_scale(
    w: np.ndarray, bits: int, per_channel: bool = False, headroom: float = 1.0, end: int | None = None
) -> np.ndarray:
    """Scale of weights (…, K): (1,), or (K,) per channel; float32. Of zeros it is 1.

    arXiv 2411.04036 eq. (5): Δw = max|w| / (2^(bits−1) − 1), here times `headroom`. end: the largest whole weight with
    with which no sum overflows, for weights that grow: where (5) would begin beyond it, it replaces 2^(bits−1) − 1.
    """
    most = abs(w).reshape(-1, w.shape[-1]).max(0) if per_channel else abs(w).max(keepdims=True).reshape(1)
    largest = 2 ** (bits - 1) - 1
    if end is not None and largest > headroom * end:
        largest = end
    scale = (headroom * most / largest).astype(np.float32)
    return np.where(scale > 0, scale, np.float32(1))


class Weighted(NamedTuple):
    """Weights and bias of a layer, in whole numbers and with their scales."""

    w: np.ndarray
    w_scale: np.ndarray  # (1,) or (K,)
    b: np.ndarray | None
    b_scale: np.ndarray


@dataclass
class _Rewriting:
    """The new graph as it grows."""

    graph: Graph
    weights: Mapping[str, np.ndarray]
    settings: Settings
    new: Graph
    scales: Mapping[str, MapScale]  # tensor of the float graph → scale of its own
    layers: Mapping[str, Weighted] | None = None  # node → its whole numbers, where they are known
    floats: bool = True  # is the input of floats?
    maps: dict[str, Map] = field(default_factory=dict)  # tensor of the float graph → what stands for it
    sums: dict[str, Quantized[str]] = field(default_factory=dict)  # of those the ones left in 32 bits

    def run(self, groups: list[Group]) -> Graph:
        """The new graph, whole."""
        self.begin()
        for group in groups:
            FORMS[group.node.op].rewrite(self, group)
        self.end()
        return self.new

    def begin(self) -> None:
        """Quantize the input, or take whole numbers where those of the layers are known."""
        scale = self.scales[INPUT]
        if not self.floats:
            held = self.hold(INPUT, scale)
            self.new.add_input(INPUT, self.graph.shape(INPUT)[1:], np.int8, held)
            self.maps[INPUT] = Map(INPUT, scale, held)
            return
        held = self.hold(INPUT, scale)
        node = "quantize"
        self.new.add_node(node, "quantize", (INPUT,), {"zero": scale.zero}, {"scale": held.scale}, {"y": held})
        self.maps[INPUT] = Map(node, scale, held)

    def end(self) -> None:
        """Make floats of the outputs."""
        outputs = []
        for tensor in self.graph.outputs:
            stands = self.maps[tensor]
            held = self.sums.get(tensor, stands.held)
            attrs = {"zero": 0 if tensor in self.sums else stands.scale.zero}
            outputs.append(
                self.new.add_node(f"{tensor}.real", "dequantize", (stands.tensor,), attrs, {"scale": held.scale})
            )
        self.new.outputs = outputs

    def parameter(self, name: str, value: np.ndarray) -> str:
        """A new parameter of no node."""
        self.new.weights[name] = value
        dtype = value.dtype if value.dtype.kind == "i" else None
        return self.new.add_parameter(name, Parameter(value.shape, "ones" if dtype is None else "zeros", dtype=dtype))

    def hold(self, name: str, scale: MapScale) -> Quantized[str]:
        """Parameters for a map's scale, and its zero point unless that is 0."""
        held = self.parameter(f"{name}.scale", np.array([scale.value], np.float32))
        if scale.zero == 0:
            return Quantized(held)
        return Quantized(held, self.parameter(f"{name}.zero", np.array([scale.zero], np.int32)))

    def saturation(self, group: Group, scale: MapScale, low: int = INT8.min, high: int = INT8.max) -> dict[str, int]:
        """The ends of what comes out: these, or those of a rectifier where one was taken in."""
        if group.rectifier is None:
            return {"low": low, "high": high}
        attrs = group.rectifier.attrs
        ends = (attrs.get(name, end) for name, end in zip(("low", "high"), RECTIFIERS[group.rectifier.op], strict=True))
        value = np.float32(scale.value)  # in which a scale is stored, and bounds are divided by it
        steps = (round(float(np.clip(np.float32(end) / value, -STEPS, STEPS))) for end in ends)
        least, most = (min(max(scale.zero + step, low), high) for step in steps)
        return {"low": least, "high": most}

    def add(
        self, group: Group, op: str, attrs: dict, params: dict[str, Parameter], scale: MapScale | None = None
    ) -> None:
        """Append the node that stands for a group; scale: its own, None is that of its input."""
        inputs = [self.maps[t] for t in group.node.inputs]
        if scale is None:
            scale, held = inputs[0].scale, inputs[0].held
            ends = self.saturation(group, scale, inputs[0].low, inputs[0].high)
        else:
            held, ends = self.hold(group.node.name, scale), self.saturation(group, scale)
        sources = tuple(x.tensor for x in inputs)
        name = self.new.add_node(group.node.name, op, sources, attrs | ends, params, {"y": held})
        self.maps[group.end] = Map(name, scale, held, **ends)

    def weighted(self, group: Group, x: Map, bits: int | None = None) -> Weighted:
        """Weights and bias of a layer, its norm folded in. bits: default those asked for."""
        if self.layers is not None:
            return self.layers[group.node.name]
        bits = self.settings.bits if bits is None else bits
        given = {local: np.asarray(self.weights[p], np.float64) for local, p in group.node.params.items()}
        w, b = given["w"], given.get("b")
        if group.norm:
            w, b = folded(w, b, group.norm, self.weights)
        headroom, sums = self.settings.headroom, MapEnds(int(np.prod(w.shape[:-1])), x.scale.zero)
        end = sums.weight_end if headroom > 1 else None
        w_scale = weight_scale(w, bits, self.settings.per_channel, headroom, end)
        b_scale = (np.float64(x.scale.value) * w_scale).astype(np.float32)
        whole = np.rint(w / w_scale.astype(np.float64)).astype(np.int8 if bits <= 8 else np.int16)
        if b is not None:
            b = np.rint(b / b_scale.astype(np.float64)).clip(-(2.0**62), 2.0**62).astype(np.int64)
        return Weighted(np.ascontiguousarray(whole), w_scale, b, b_scale)

    def layer(self, group: Group, op: str, attrs: dict) -> None:
        """Append a convolution or linear layer that requantizes its sums."""
        node, x = group.node, self.maps[group.node.inputs[0]]
        y, made = self.scales[group.end], self.checked(group, x)
        factors = np.float64(x.scale.value) * made.w_scale.astype(np.float64) / y.value
        try:
            multiplier, shift = fixed_each(np.broadcast_to(factors, made.w.shape[-1:]))
        except ValueError as e:
            raise ValueError(f"node {node.name} ({node.op}) of {self.graph.name}: {e}") from None
        params = self.params(group, made)
        for local, value in (("multiplier", multiplier), ("shift", shift)):
            params[local] = Parameter(value.shape, "zeros")
            self.new.weights[f"{node.name}.{local}"] = value
        attrs |= {"x_zero": x.scale.zero, "y_zero": y.zero, "twice": self.settings.twice}
        self.add(group, op, attrs, params, y)

    def params(self, group: Group, made: Weighted) -> dict[str, Parameter]:
        """The parameters w and b of a layer; their values and scales become the new graph's."""
        name, own = group.node.name, self.graph.parameters[group.node.params["w"]]
        axis = made.w.ndim - 1 if self.settings.per_channel else None
        w_scale = self.parameter(f"{name}.w_scale", made.w_scale)
        b_scale = self.parameter(f"{name}.b_scale", made.b_scale)
        self.new.weights[f"{name}.w"] = made.w
        params = {"w": replace(own, dtype=made.w.dtype, quantized=Quantized(w_scale, axis=axis))}
        if made.b is not None:
            self.new.weights[f"{name}.b"] = made.b.astype(np.int32)
            held = Quantized(b_scale, axis=None if axis is None else 0)
            params["b"] = Parameter(made.b.shape, "zeros", dtype=np.dtype(np.int32), quantized=held)
        return params

    def checked(self, group: Group, x: Map) -> Weighted:
        """The weights of a layer; ValueError where one of its sums might not fit into int32."""
        made, node = self.weighted(group, x), group.node
        largest = largest_sum(made.w, made.b, x.ends)
        if largest.max() <= INT32.max:
            return made
        would = ""
        if self.layers is None:
            fits = (b for b in range(self.settings.bits - 1, 1, -1) if self.fits(group, x, b))
            bits = next(fits, None)
            would = f": weights of {bits} bits would fit" if bits else ": not even weights of 2 bits would fit"
        raise ValueError(
            f"node {node.name} ({node.op}) of {self.graph.name}: a sum of channel {int(largest.argmax())} may reach "
            f"{int(largest.max()):,}, but int32 ends at {INT32.max:,}{would}"
        )

    def fits(self, group: Group, x: Map, bits: int) -> bool:
        """Would all sums fit with weights of so many bits?"""
        made = self.weighted(group, x, bits)
        return bool(largest_sum(made.w, made.b, x.ends).max() <= INT32.max)


def folded(w: np.ndarray, b: np.ndarray | None, norm: Node, weights: Mapping[str, np.ndarray]):
    """Weights (…, K) and bias (K,), float64, of a convolution and the fixed batch norm behind it as one convolution."""
    own = {local: np.asarray(weights[p], np.float64) for local, p in norm.params.items()}
    eps = {**norm.operator.defaults, **norm.attrs}["eps"]
    scale = own["gamma"] / np.sqrt(own["running_var"] + eps)
    return w * scale, own["beta"] + ((0 if b is None else b) - own["running_mean"]) * scale


def _convolution(net: _Rewriting, group: Group) -> None:
    net.layer(group, "quantized_conv2d", dict(group.node.attrs))


def _linear(net: _Rewriting, group: Group) -> None:
    """Left in 32 bits where it makes an output that nobody else reads."""
    node = group.node
    alone = not any(node.name in other.inputs for other in net.graph.needed())
    if group.rectifier or not alone:
        net.layer(group, "quantized_linear", {})
        return
    x = net.maps[node.inputs[0]]
    made = net.checked(group, x)
    params = net.params(group, made)
    held = Quantized(f"{node.name}.b_scale", axis=1 if net.settings.per_channel else None)
    net.new.add_node(node.name, "quantized_linear", (x.tensor,), {"x_zero": x.scale.zero}, params, {"sums": held})
    net.maps[node.name] = Map(f"{node.name}.sums", MapScale(1.0), held)
    net.sums[node.name] = held


def _sum(net: _Rewriting, group: Group) -> None:
    a, b = (net.maps[t].scale for t in group.node.inputs)
    y = net.scales[group.end]
    attrs = quantized_add.settings(a.value, b.value, y.value)
    attrs |= {"a_zero": a.zero, "b_zero": b.zero, "y_zero": y.zero, "twice": net.settings.twice}
    net.add(group, "quantized_add", attrs, {}, y)


def _concatenation(net: _Rewriting, group: Group) -> None:
    y, name, inputs = net.scales[group.end], group.node.name, group.node.inputs
    widths = [net.graph.shape(t)[-1] for t in inputs]
    scales = [net.maps[t].scale for t in inputs]
    pairs = [fixed(x.value / y.value) for x in scales]
    rows = ([x.zero for x in scales], [m for m, _ in pairs], [s for _, s in pairs])
    params = {}
    for local, row in zip(("x_zero", "multiplier", "shift"), rows, strict=True):
        net.new.weights[f"{name}.{local}"] = np.repeat(np.array(row, np.int32), widths)
        params[local] = Parameter((sum(widths),), "zeros")
    net.add(group, "quantized_concat", {"y_zero": y.zero, "twice": net.settings.twice}, params, y)


def _global_mean(net: _Rewriting, group: Group) -> None:
    tensor = group.node.inputs[0]
    x, y = net.maps[tensor].scale, net.scales[group.end]
    pixels = net.graph.shape(tensor)[1] * net.graph.shape(tensor)[2]
    multiplier, shift = fixed(x.value / (y.value * pixels))
    attrs = {"x_zero": x.zero, "y_zero": y.zero, "multiplier": multiplier, "shift": shift, "pixels": pixels}
    net.add(group, "quantized_global_avg_pool", attrs | {"twice": net.settings.twice}, {}, y)


def _mean(net: _Rewriting, group: Group) -> None:
    x = net.maps[group.node.inputs[0]].scale
    net.add(group, "quantized_avg_pool", {**group.node.attrs, "x_zero": x.zero}, {})


def _maximum(net: _Rewriting, group: Group) -> None:
    net.add(group, "quantized_max_pool", dict(group.node.attrs), {})


def _reshaped(net: _Rewriting, group: Group) -> None:
    node, x = group.node, net.maps[group.node.inputs[0]]
    name = net.new.add_node(node.name, node.op, (x.tensor,), dict(node.attrs), {})
    net.maps[group.end] = x._replace(tensor=name)


def _left_out(net: _Rewriting, group: Group) -> None:
    net.maps[group.end] = net.maps[group.node.inputs[0]]


class Form(NamedTuple):
    """What an operator becomes in whole numbers.

    scales: does its result have a scale of its own? takes_norm, rectifies: does it take in a norm, a rectifier?
    """

    rewrite: Callable[[_Rewriting, Group], None]
    scales: bool = False
    takes_norm: bool = False
    rectifies: bool = True


FORMS = {
    "conv2d": Form(_convolution, scales=True, takes_norm=True),
    "linear": Form(_linear, scales=True),
    "add": Form(_sum, scales=True),
    "concat": Form(_concatenation, scales=True),
    "global_avg_pool": Form(_global_mean, scales=True),
    "avg_pool": Form(_mean),
    "max_pool": Form(_maximum),
    "flatten": Form(_reshaped, rectifies=False),
    "as_map": Form(_reshaped, rectifies=False),
    "reshape": Form(_reshaped, rectifies=False),
    "dropout": Form(_left_out, rectifies=False),
    "identity": Form(_left_out, rectifies=False),
}  # fmt: skip
