"""Gemm: a linear layer y = α x W + β b.  W (K, D) under transB, else (D, K)  →  w (D, K).

Where x is a flattened map our features are in the order (H, W, C), and ONNX's in (C, H, W): the rows of w follow ours.
"""

from ..layers import linear
from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Gemm",)


def convert(here: OnnxNode) -> None:
    """A linear layer."""
    if here.attr("transA", 0):
        raise Unsupported("it transposes its input, which mixes samples")
    alpha, beta = float(here.attr("alpha", 1.0)), float(here.attr("beta", 1.0))
    bias = (here.node, 2) if here.given(2) and beta else None
    linear(here, 1, bool(here.attr("transB", 0)), bias, alpha, beta)
