"""How the fast kernels prune error maps."""

import numpy as np

from ...compiler import grouping
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...methods import error_map_pruning as emp
from ...ops import conv2d
from ..activation import NONE
from ..common import absent, named
from . import batch_norm as fast_bn
from . import channel_rules, channels, depthwise, tiles
from .norm_rules import buffers, depthwise_scratch, sliced


def score(lowering: Lowering, call: Call) -> list[Launch]:
    """The scores of error map pruning, from sums over slices of the samples."""
    a, dtype = call.arrays, call.arrays["dy"].dtype
    partials = lowering.scratch(call, "partials", tiles.grad_b_partials(call.sizes), dtype)
    gammas = (dtype.type(call.attrs[name]) for name in ("gamma_w", "gamma_dy"))
    args = (a["scores"], partials, a["dy"], a["w"], *gammas)
    return [Launch(call.name, channels.score, args, (a["dy"], a["w"]), (a["scores"],), (call,), (partials,))]


def kept_depthwise(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Gradients of x and, if asked for, of w: of some channels of a depthwise convolution, which stand side by side."""
    if not call.renamed or not grouping.depthwise(call):
        return None
    conv = grouping.beside(lowering, call)
    grad_w, grad_x, covers = conv.grad_w, conv.grad_x, conv.gradients
    if grad_x is None:
        return None  # the first trained layer has no dx: its reference kernel does
    w, dy, dx = (grad_x.arrays[a] for a in ("w", "dy", "dx"))
    no_table, no_map, no_sums = absent(2, w.dtype), absent(4, w.dtype), absent(3, np.float64)
    geometry = (call.attrs["stride"], call.attrs["dilation"], call.attrs["pad"])
    of = (w.shape, dy.shape[1:], w.dtype.itemsize, *geometry)
    scratch = depthwise_scratch(lowering, call, depthwise.backward_scratch, dx, *of)
    x, share, follow = no_map, absent(5, w.dtype), []
    if grad_w:
        x, dw = grad_w.arrays["x"], grad_w.arrays["dw"]
        share = sliced(lowering, call, "dw_slices", depthwise.slices, w.shape, w.dtype)
        name = f"{call.node} add slices of dw"
        follow = [Launch(name, fast_bn.add_slices, (dw, share), buffers(share), (dw,), covers=())]
        spread = lowering.reader(dw, emp.spread_w)
        follow += channel_rules.spread(lowering, spread)  # it came before dx was at hand
    args = (dx, share, dy, no_map, no_table, x, no_table, w, no_sums, *scratch, NONE, *geometry)
    return [
        Launch(named(covers), depthwise.backward, args, buffers(dy, x, w), buffers(dx, share), covers, scratch),
        *follow,
    ]


RULES = {  # rule → the passes of the calls that it begins at
    channel_rules.take: (emp.keep_dy, emp.keep_w, emp.keep_x),
    channel_rules.spread: (emp.spread_x, emp.spread_w),
    score: (emp.score,),
    kept_depthwise: (conv2d.grad_w, conv2d.grad_x),
}
