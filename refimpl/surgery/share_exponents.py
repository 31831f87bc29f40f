"""A net of floats as one of whole numbers that share exponents, to be trained by NITI (`methods.niti`).

Weights become int8 with the smallest exponent that holds the largest of them, biases int16 with the exponent of their
weights; a parameter without values keeps how it starts. Exponents of maps are found anew in every step, so nothing is
calibrated but the exponent of the input. A tensor that several nodes read goes through a `niti_fork`, where its
gradients meet. Node names stay; dropout is left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ..graph import INPUT, Graph, Node, Parameter
from ..kernels.quantized import Quantized
from ..kernels.shared_exponent import BITS, MOST

LEAST, LARGEST = -62, 62  # of an exponent


class Shared(NamedTuple):
    """A tensor of whole numbers, and the one that holds its exponent."""

    tensor: str
    exponent: str


def share_exponents(
    graph: Graph, weights: Mapping[str, np.ndarray] | None = None, samples: np.ndarray | None = None
) -> Graph:
    """The net in whole numbers, with its weights; without `weights` an outline, to be compiled for its costs.

    weights: every parameter of `graph`. samples: (M, H, W, C) floats, whose largest magnitude tells the exponent of the
    input; without them that of numbers up to 1. ValueError names the node and its operator where it has no form here.
    """
    if graph.inputs != (INPUT,) or graph.tensors[INPUT].dtype is not None:
        raise ValueError(f"{graph.name} must have one input of floats called {INPUT} to share exponents")
    if len(graph.outputs) > 1:
        raise ValueError(f"{graph.name} must have one output to share exponents, got {', '.join(graph.outputs)}")
    if shared := [name for name, users in graph.users().items() if len(users) > 1]:
        raise ValueError(f"{shared[0]} of {graph.name} is used by several nodes: give each a copy of its own")
    for name, values in (weights or {}).items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name} of {graph.name} is not finite: it has no exponent")
    return _Sharing(graph, weights).run(1.0 if samples is None else float(np.abs(samples).max()))


def exponent_of(most: float) -> int:
    """The smallest e for which most ≤ 2^(e + 7), from −62 to 62; of 0 it is −7. A power of two becomes ±127."""
    if most == 0:
        return -BITS
    mantissa, exponent = np.frexp(most)
    return int(np.clip(exponent - (mantissa == 0.5) - BITS, LEAST, LARGEST))


def whole(values: np.ndarray, exponent: int, end: int, dtype) -> np.ndarray:
    """The whole numbers nearest to values·2^−exponent, cut off at ±end."""
    return np.rint(np.ldexp(np.asarray(values, np.float64), -exponent)).clip(-end, end).astype(dtype)


@dataclass
class _Sharing:
    """The new graph as it grows."""

    graph: Graph
    weights: Mapping[str, np.ndarray] | None
    new: Graph = field(init=False)
    maps: dict[str, list[Shared]] = field(default_factory=dict)  # tensor → one for each node that reads it
    readers: dict[str, int] = field(init=False)

    def __post_init__(self):
        self.new = self.graph.bare()
        self.new.name, self.new.weights, self.new._outputs = f"{self.graph.name} niti", {}, ()
        inputs = [t for node in self.graph.needed() for t in node.inputs]
        self.readers = {t: inputs.count(t) for t in (*inputs, self.graph.output)}
        if self.readers[self.graph.output]:
            raise ValueError(f"the output {self.graph.output} of {self.graph.name} is read by a node too")

    def run(self, most: float) -> Graph:
        """The new graph, whole. most: the largest magnitude of the input."""
        exponent = self.parameter("input.exponent", exponent_of(most))
        name = self.new.add_node(
            "whole", "niti_input", (INPUT,), {}, {"exponent": exponent}, {"y": Quantized("y_exponent")}
        )
        self.made(INPUT, Shared(name, f"{name}.y_exponent"))
        for node in self.graph.needed():
            if node.op not in FORMS:
                raise ValueError(
                    f"node {node.name} ({node.op}) of {self.graph.name} has no form in whole numbers that share "
                    f"exponents; those that have are {', '.join(FORMS)}"
                )
            self.made(node.name, FORMS[node.op](self, node, [self.maps[t].pop() for t in node.inputs]))
        self.new.outputs = (self.maps[self.graph.output][0].tensor,)
        return self.new

    def made(self, tensor: str, found: Shared) -> None:
        """Note what stands for a tensor, with a fork for each further node that reads it."""
        each = [found]
        for i in range(1, self.readers[tensor]):
            x = each.pop()
            name = self.new.add_node(f"{tensor}.fork{i}", "niti_fork", tuple(x), {}, {})
            each += [Shared(name, f"{name}.a_exponent"), Shared(f"{name}.b", f"{name}.b_exponent")]
        self.maps[tensor] = each

    def kept(self, name: str, op: str, x: Shared, attrs: dict) -> Shared:
        """Append a node whose output has the exponent of its input."""
        return Shared(self.new.add_node(name, op, (x.tensor,), attrs, {}, {"y": Quantized(x.exponent)}), x.exponent)

    def own(self, name: str, op: str, x: Shared, attrs: dict, params: dict | None = None) -> Shared:
        """Append a node whose output has an exponent of its own."""
        made = self.new.add_node(name, op, tuple(x), attrs, params or {}, {"y": Quantized("y_exponent")})
        return Shared(made, f"{made}.y_exponent")

    def parameter(self, name: str, value: int) -> str:
        """A new parameter of no node, an exponent."""
        self.new.weights[name] = np.array([value], np.int32)
        return self.new.add_parameter(name, Parameter((1,), "zeros", dtype=np.dtype(np.int32)))

    def layer(self, node: Node, op: str, x: Shared) -> Shared:
        """Append a layer with its weights."""
        given = {} if self.weights is None else {local: self.weights[p] for local, p in node.params.items()}
        exponent = exponent_of(float(np.abs(given["w"]).max())) if given else -BITS
        held = self.parameter(f"{node.name}.w_exponent", exponent)
        params: dict[str, Parameter | str] = {"w_exponent": held}
        for local, end, dtype in (("w", MOST, np.int8), ("b", np.iinfo(np.int16).max, np.int16)):
            if local in node.params:
                own = self.graph.parameters[node.params[local]]
                params[local] = replace(own, dtype=np.dtype(dtype), quantized=Quantized(held))
                if given:
                    self.new.weights[f"{node.name}.{local}"] = whole(given[local], exponent, end, dtype)
        return self.own(node.name, op, x, dict(node.attrs), params)


def _convolution(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    return net.layer(node, "niti_conv2d", inputs[0])


def _linear(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    if len(net.graph.shape(node.inputs[0])) != 2:
        raise ValueError(
            f"node {node.name} (linear) of {net.graph.name} has no form in whole numbers that share exponents for rows "
            "of more than two axes: flatten its input"
        )
    return net.layer(node, "niti_linear", inputs[0])


def _sum(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    one, other = inputs
    made = net.new.add_node(node.name, "niti_add", (*one, *other), {}, {}, {"y": Quantized("y_exponent")})
    return Shared(made, f"{made}.y_exponent")


def _rectified(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    return net.kept(node.name, "niti_relu", inputs[0], {})


def _maximum(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    return net.kept(node.name, "niti_max_pool", inputs[0], dict(node.attrs))


def _mean(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    attrs = {a: v for a, v in node.attrs.items() if a != "count_include_pad"}
    return net.own(node.name, "niti_avg_pool", inputs[0], attrs)


def _global_mean(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    size = net.graph.shape(node.inputs[0])[1:3]
    found = net.own(f"{node.name}.mean", "niti_avg_pool", inputs[0], {"window": size, "stride": size})
    return Shared(net.new.flatten(node.name, found.tensor), found.exponent)


def _reshaped(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    return Shared(net.new.flatten(node.name, inputs[0].tensor), inputs[0].exponent)


def _left_out(net: _Sharing, node: Node, inputs: list[Shared]) -> Shared:
    return inputs[0]


FORMS: dict[str, Callable[[_Sharing, Node, list[Shared]], Shared]] = {
    "conv2d": _convolution, "linear": _linear, "relu": _rectified, "max_pool": _maximum, "avg_pool": _mean,
    "global_avg_pool": _global_mean, "add": _sum, "flatten": _reshaped, "dropout": _left_out, "identity": _left_out,
}  # fmt: skip
