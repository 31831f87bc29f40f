"""A model as data: `Graph`, built by a method for each operator, and what it is made of."""

from .graph import Graph
from .nodes import DTYPES, INPUT, Node, Pad, Pair, Parameter, Tensor, check_dtype, node_attrs, output_shapes

__all__ = [
    "DTYPES", "INPUT", "Graph", "Node", "Pad", "Pair", "Parameter", "Tensor", "check_dtype", "node_attrs",
    "output_shapes",
]  # fmt: skip
