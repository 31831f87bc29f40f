"""What a graph is made of: named tensors, nodes and parameters, and what shapes and dtypes they have.

What an operator is, and what it states of itself, is in `refimpl.ops`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import DTypeLike

from ..kernels.geometry import same_pad
from ..kernels.passes import ShapeError, dtypes_of, full_shape, read_sizes, starred_axes
from ..kernels.quantized import Quantized
from ..ops import Operator, operator


@dataclass(frozen=True)
class Tensor:
    """A named array between nodes. shape: at a batch of one sample. dtype: None is the float dtype of a program.

    producer: the node that writes it, None for an input. quantized: by the names of parameters or tensors of the graph.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype | None = None
    producer: str | None = None
    quantized: Quantized[str] | None = None


@dataclass(frozen=True)
class Node:
    """One operator in a graph. Its first output tensor bears its name, another one `name.output`."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Mapping = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)  # the operator's array name → parameter name of the graph

    @property
    def operator(self) -> Operator:
        """The operator's declaration."""
        return operator(self.op)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its output tensors, in the order of the operator's OUTPUTS."""
        return self.name, *(f"{self.name}.{local}" for local in self.operator.outputs[1:])

    @property
    def passing(self) -> tuple[str, ...]:
        """Its inputs without those at which gradients stop."""
        op = self.operator
        pairs = zip(op.locals(len(self.inputs)), self.inputs, strict=True)
        return tuple(tensor for local, tensor in pairs if local not in op.stops)


DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


@dataclass(frozen=True)
class Parameter:
    """A named array of the model: its shape and how it starts. ValueError for a dtype that no kernel reads.

    dtype: one of DTYPES that the operator takes; None is the one that it names, else the float dtype of a program.
    quantized: where its scale and zero point are, by the operator's own names or those of parameters of the graph.
    """

    shape: tuple[int, ...]
    init: str  # "he": normal with variance gain² · 2 / fan-in; "zeros"; "ones"
    fan_in: int = 1
    gain: float = 1.0
    dtype: np.dtype | None = None
    quantized: Quantized[str] | None = None

    def __post_init__(self):
        if self.dtype is not None:
            object.__setattr__(self, "dtype", np.dtype(self.dtype))
            if self.dtype not in DTYPES:
                raise ValueError(f"a parameter can be of {', '.join(DTYPES)}, got {self.dtype}")

    def nbytes(self, dtype: DTypeLike) -> int:
        """Its bytes in a program of this float dtype."""
        return math.prod(self.shape) * np.dtype(self.dtype or dtype).itemsize


INPUT = "input"
Pair = int | tuple[int, int]  # rows and columns, or one number for both
Pad = Pair | tuple[tuple[int, int], tuple[int, int]] | str  # ((top, bottom), (left, right)), "same", "valid" (none)


def output_shapes(
    node: Node, shapes: Mapping[str, tuple[int, ...]], parameters: Mapping[str, Parameter]
) -> dict[str, tuple[int, ...]]:
    """Shape of each output tensor of a node; ShapeError names the node."""
    op = node.operator
    try:
        arrays = {local: _Shaped(shapes[t]) for local, t in zip(op.locals(len(node.inputs)), node.inputs, strict=True)}
        arrays |= {local: _Shaped(parameters[p].shape) for local, p in node.params.items()}
        entries = {a: op.shapes[a] for a in arrays if a in op.shapes}
        known = {a: arrays[a] for a in entries}
        axes = starred_axes(entries, known)
        sizes = read_sizes(op.shapes, known)
        if op.bind:
            inputs = {local: arrays[local] for local in op.locals(len(node.inputs))}
            sizes |= op.bind(list(inputs.values())).sizes
            axes |= starred_axes(dict.fromkeys(inputs, op.shapes["x"]), inputs)
        if op.derive:
            sizes |= op.derive(sizes, node_attrs(node, sizes))
        outputs = zip(op.outputs, node.outputs, strict=True)
        return {tensor: full_shape(op.shapes[local], sizes, axes) for local, tensor in outputs}
    except ShapeError as e:
        raise ShapeError(f"node {node.name} ({node.op}): {e}") from None


def renamed(quantized: Quantized[str], own: Mapping[str, str]) -> Quantized[str]:
    """The same by the graph's names. own: the operator's name of an array of the node → the graph's."""
    zero = quantized.zero_point
    return replace(quantized, scale=own.get(quantized.scale, quantized.scale), zero_point=zero and own.get(zero, zero))


def settled(node: Node, local: str, parameter: Parameter, own: Mapping[str, str]) -> Parameter:
    """A new parameter of a node with the dtype that its operator names, and its scale by the graph's name."""
    named = dtypes_of(node.operator.shapes.get(local, ""))
    dtype = named[0] if parameter.dtype is None and len(named) == 1 else parameter.dtype
    if dtype is None:
        return parameter  # of floats
    return replace(parameter, dtype=dtype, quantized=parameter.quantized and renamed(parameter.quantized, own))


def check_dtype(node: Node, local: str, dtype: np.dtype | None) -> None:
    """ValueError where an operator's array is not of a dtype that it takes; one that no pass reads has any."""
    op = node.operator
    entry = op.shapes.get(local) or op.shapes["x"]  # of several inputs each is one
    named = dtypes_of(entry)
    if dtype not in (named or (None,)) and (named or any(local in p.arrays for p in op.passes.values())):
        wanted = " or ".join(map(str, named)) or "the float dtype of the program"
        raise ValueError(f"node {node.name} ({node.op}): {local} must be of {wanted}, got {dtype or 'that of floats'}")


def node_attrs(node: Node, sizes: Mapping[str, int]) -> dict:
    """A node's attributes with the operator's defaults, and `pad="same"` worked out for its input size."""
    op = node.operator
    attrs = {**op.defaults, **node.attrs}
    if attrs.get("pad") == "same":
        windows = attrs.get("window") or (sizes["R"], sizes["S"])
        attrs["pad"] = tuple(
            same_pad(sizes[size], windows[i], attrs["stride"][i], attrs.get("dilation", (1, 1))[i])
            for i, size in enumerate("HW")
        )
    return attrs


@dataclass(frozen=True)
class _Shaped:
    """A shape where an array is expected."""

    shape: tuple[int, ...]
