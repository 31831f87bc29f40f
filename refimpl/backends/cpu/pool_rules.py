"""Poolings and maps in another size on the fast kernels: the maximum and its place in one sweep."""

import numpy as np

from ...compiler import grouping
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import avg_pool, global_avg_pool, interpolate, max_pool
from ..common import absent, counted_margin, named, present
from . import avg_pool as fast_avg_pool
from . import interpolate as fast_interpolate
from . import max_pool as fast_max_pool

MEANS = {
    avg_pool.forward: (fast_avg_pool.forward, "y", "x"),
    avg_pool.grad_x: (fast_avg_pool.grad_x, "dx", "dy"),
    global_avg_pool.forward: (fast_avg_pool.global_forward, "y", "x"),
    global_avg_pool.grad_x: (fast_avg_pool.global_grad_x, "dx", "dy"),
}


def maximum(lowering: Lowering, call: Call) -> list[Launch]:
    """Max pooling, with the places that its gradient needs where there are any."""
    a = call.arrays
    if call.passed is max_pool.grad_x:
        args = (a["dx"], a["dy"], a["argmax"], fast_max_pool.geometry(call.attrs))
        return [Launch(call.name, fast_max_pool.grad_x, args, (a["dy"], a["argmax"]), (a["dx"],), (call,))]
    places = grouping.places(lowering, call)
    covers, argmax = grouping.given(call, places), places.arrays["argmax"] if places else absent(4, np.uint8)
    args = (a["y"], argmax, a["x"], fast_max_pool.geometry(call.attrs))
    return [Launch(named(covers), fast_max_pool.forward, args, (a["x"],), present(a["y"], argmax), covers)]


def mean(lowering: Lowering, call: Call) -> list[Launch]:
    """Average pooling, and that of whole maps."""
    kernel, out, given = MEANS[call.passed]
    out, given = call.arrays[out], call.arrays[given]
    more = ()
    if call.passed.operator == "avg_pool":
        more = (fast_max_pool.geometry(call.attrs), counted_margin(call.attrs))
    return [Launch(call.name, kernel, (out, given, *more), (given,), (out,), (call,))]


def resized(lowering: Lowering, call: Call) -> list[Launch]:
    """A map in another size, or its gradient."""
    kernel = fast_interpolate.forward if call.passed is interpolate.forward else fast_interpolate.grad_x
    out, given = (call.arrays[a] for a in call.passed.arrays)
    z, a = call.sizes, call.attrs
    rows = interpolate.line(z["H"], z["P"], a["size"][0], a["scale"][0], a["grid"][0])
    columns = interpolate.line(z["W"], z["Q"], a["size"][1], a["scale"][1], a["grid"][1])
    args = (out, given, rows, columns, bool(a["smooth"]), a["rounding"])
    return [Launch(call.name, kernel, args, (given,), (out,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    maximum: (max_pool.forward, max_pool.grad_x),
    mean: MEANS,
    resized: (interpolate.forward, interpolate.grad_x),
}
