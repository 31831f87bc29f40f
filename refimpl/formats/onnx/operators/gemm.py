"""Gemm: a linear layer y = α x W + β b.  W (K, D) under transB, else (D, K)  →  w (D, K).

Of tokens whose axis was joined with that of samples, (N·T, D) or (T·N, D), it is a convolution of 1×1.
Where x is a flattened map our features are in the order (H, W, C), and ONNX's in (C, H, W): the rows of w follow ours.
"""

from ..arithmetic import line
from ..layers import linear, of_rows
from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Gemm",)


def convert(here: OnnxNode) -> None:
    """A linear layer; behind it an affine, where its bias is one number."""
    if here.attr("transA", 0):
        raise Unsupported("it transposes its input, which mixes samples")
    layer = linear if here.walk.features(here.tensor(0)) else of_rows
    alpha, beta = float(here.attr("alpha", 1.0)), float(here.attr("beta", 1.0))
    bias = (here.node, 2) if here.given(2) and beta else None
    number = here.constant(2, "bias") if bias else None
    if number is not None and number.size == 1 < here.constant(1, "weights").size:  # one for all, which does not train
        name, here.name = here.name, here.walk.unique(f"{here.name}.product")
        layer(here, 1, bool(here.attr("transB", 0)), None, alpha, beta)
        here.name = name
        line(here, here.given_value(), 1.0, beta * float(number.reshape(-1)[0]))
    else:
        layer(here, 1, bool(here.attr("transB", 0)), bias, alpha, beta)
