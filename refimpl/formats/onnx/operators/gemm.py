"""Gemm: a linear layer y = α x W + β b.  W (K, D) under transB, else (D, K)  →  w (D, K).

Where x is a flattened map our features are in the order (H, W, C), and ONNX's in (C, H, W): the rows of w follow ours.
"""

from ..layers import linear
from ..value import Unsupported
from ..walk import Step

OPERATORS = ("Gemm",)


def convert(step: Step) -> None:
    """A linear layer."""
    if step.attr("transA", 0):
        raise Unsupported("it transposes its input, which mixes samples")
    alpha, beta = float(step.attr("alpha", 1.0)), float(step.attr("beta", 1.0))
    bias = (step.node, 2) if step.given(2) and beta else None
    linear(step, 1, bool(step.attr("transB", 0)), bias, alpha, beta)
