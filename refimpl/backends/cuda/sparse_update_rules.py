"""Sparse update's gradient of a depthwise convolution in the terms of one of its chosen channels."""

from ...compiler.grouping import AsConvolution
from ...compiler.ir import Call
from ...methods import sparse_update

GRAD_W = sparse_update.grad_w


def of_chosen(call: Call) -> AsConvolution:
    """The gradient as that of a depthwise convolution of the chosen channels of x, which were copied side by side."""
    a = call.arrays
    dw = a["dw"].reshape((*a["dw"].shape[:2], 1, a["dw"].shape[2]))
    return AsConvolution(dict(call.sizes), dict(call.attrs), {"dw": dw, "dy": a["dy"], "x": a["x_chosen"]})
