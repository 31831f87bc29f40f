"""Poolings: the maximum and its place in one launch, means of windows and of whole maps."""

from collections.abc import Mapping

import numpy as np

from ...compiler import grouping
from ...compiler.ir import AtBatch, Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...ops import avg_pool, global_avg_pool, max_pool, niti_max_pool, quantized_max_pool
from ..common import absent, counted_margin, elements, named, present
from . import pooling
from .tile import up

MAXIMA = (max_pool, niti_max_pool, quantized_max_pool)
LOWEST, HIGHEST = -128, 127  # of whole numbers that nothing else saturates
MEANS = {avg_pool.forward: pooling.MEAN_FORWARD, avg_pool.grad_x: pooling.MEAN_GRAD_X}


def geometry_of(sizes: dict, attrs: Mapping) -> tuple[int, ...]:
    """The geometry of a pooling's windows as that of a convolution's taps, channels in the place of groups."""
    letters = (*(sizes[letter] for letter in "HWPQC"), *attrs["window"], *attrs["stride"], 1, 1)
    return (*map(int, (*letters, attrs["pad"][0][0], attrs["pad"][1][0])),)


def whole_map(sizes: dict) -> tuple[int, ...]:
    """The geometry of one window that is the map."""
    window = int(sizes["H"]), int(sizes["W"])
    return geometry_of({**sizes, "P": 1, "Q": 1}, {"window": window, "stride": (1, 1), "pad": ((0, 0), (0, 0))})


def items(made: Buffer, run: int = pooling.EACH) -> AtBatch:
    """Those of kernels that make `run` pixels of a row of a channel, for n samples of a map (N, H, W, C)."""
    _, rows, columns, channels = made.shape
    each = made.batched * rows * up(columns, run) * channels
    return AtBatch(lambda n: n * each)


def run_of(call: Call) -> int:
    """Pixels of a thread: of a gradient those that are before the same taps."""
    return pooling.of_dx(call.attrs["stride"][1]) if call.passed.name == "grad_x" else pooling.EACH


def maximum(lowering: Lowering, call: Call) -> list[Launch]:
    """The maxima of windows, with the places that their gradient needs where there are any."""
    a, places = call.arrays, grouping.places(lowering, call)
    covers = grouping.given(call, places)
    y, x = elements(a["y"]), elements(a["x"])
    argmax = elements(places.arrays["argmax"]) if places else absent(1, np.uint8)
    limits = call.attrs.get("low", LOWEST), call.attrs.get("high", HIGHEST)
    args = items(a["y"]), y, argmax, x, geometry_of(call.sizes, call.attrs), *limits
    return [Launch(named(covers), pooling.MAX_FORWARD, args, (x,), present(y, argmax), covers)]


def of_maxima(lowering: Lowering, call: Call) -> list[Launch]:
    """The gradient of the maxima of windows, by their places, through the mask of those that were not saturated."""
    a, mask = call.arrays, call.arrays.get("mask", absent(2, np.uint8))
    dx, dy, argmax = (elements(a[name]) for name in ("dx", "dy", "argmax"))
    args = items(a["dx"], run_of(call)), dx, dy, argmax, mask, geometry_of(call.sizes, call.attrs)
    return [Launch(call.name, pooling.MAX_GRAD_X, args, present(dy, argmax, mask), (dx,), (call,))]


def along(lowering: Lowering, call: Call) -> list[Launch]:
    """The tangent of the maxima of windows, by their places."""
    ty, tx, argmax = (elements(call.arrays[a]) for a in call.passed.arrays)
    args = items(call.arrays["ty"]), ty, tx, argmax, geometry_of(call.sizes, call.attrs)
    return [Launch(call.name, pooling.MAX_TANGENT, args, (tx, argmax), (ty,), (call,))]


def mean(lowering: Lowering, call: Call) -> list[Launch]:
    """The means of windows, or their gradient."""
    made, given = (call.arrays[a] for a in call.passed.arrays)
    y, x = elements(made), elements(given)
    args = items(made, run_of(call)), y, x, geometry_of(call.sizes, call.attrs), counted_margin(call.attrs)
    return [Launch(call.name, MEANS[call.passed], args, (x,), (y,), (call,))]


def of_map(lowering: Lowering, call: Call) -> list[Launch]:
    """The means of whole maps, or their gradient."""
    made, given = (call.arrays[a] for a in call.passed.arrays)
    y, x = elements(made), elements(given)
    geometry = whole_map(call.sizes)
    pixels, channels = geometry[0] * geometry[1], geometry[4]
    if call.passed is global_avg_pool.forward:
        many, kernel = AtBatch(lambda n: pooling.map_items(n * made.batched, pixels, channels)), pooling.MAP_FORWARD
    else:
        each = made.batched * up(pixels, pooling.EACH) * channels
        many, kernel = AtBatch(lambda n: n * each), pooling.MAP_GRAD_X
    return [Launch(call.name, kernel, (many, y, x, geometry), (x,), (y,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    maximum: tuple(operator.forward for operator in MAXIMA),
    of_maxima: tuple(operator.grad_x for operator in MAXIMA),
    along: (max_pool.tangent,),
    mean: MEANS,
    of_map: (global_avg_pool.forward, global_avg_pool.grad_x),
}
