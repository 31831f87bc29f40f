"""Work of the dense products of refimpl.backends.cpu.conv2d: convolutions and linear layers.

Work on tiles counts as much as the busiest thread has to do, times the number of threads.
"""

import numpy as np

from refimpl.backends.cpu import tiles
from refimpl.backends.cpu.simd import LANES
from refimpl.compiler.grouping import GRAD_X, convolution
from refimpl.compiler.ir import Call, Launch

from ..stated import in_lanes, product, states_work


def way(launch: Launch) -> str:
    """How the kernel goes about a product: what its rates differ by."""
    call = product(launch)
    z, attrs, _ = convolution(call)
    if tiles.in_place(z, attrs):
        return "in place"
    if z["G"] > 1:
        return "in groups"
    if call.passed in GRAD_X:
        return "turned" if tiles.turns(z, attrs) else "scattered"
    return "of one channel" if z["C"] == 1 else "gathered"


def _share(items: int, threads: int) -> float:
    """How much longer the busiest thread takes than an even share."""
    return tiles.ceil_div(items, threads) * threads / items


@states_work("conv2d.forward", way=way, alone=True, streams=True)
def forward(launch, threads):
    """A product of gathered rows with the kernel."""
    call = product(launch)
    z, attrs, _ = convolution(call)
    cut = tiles.forward_tiles(z, attrs)
    return _gathered(z, attrs, cut, threads, z["P"] * z["Q"], z["K"], z["C"] // z["G"], _itemsize(call, "w"))


def _itemsize(call: Call, array: str) -> int:
    """Bytes of an element of one of a call's arrays."""
    return np.dtype(call.arrays[array].dtype).itemsize


def _gathered(z, attrs, cut, threads: int, pixels: int, width: int, depth: int, itemsize: int) -> dict:
    """A product of gathered rows with the kernel: maps of `pixels` and `width` channels from `depth` a group.

    itemsize: bytes of an element of the kernel.
    """
    together, part, channels, r, s = cut
    items = tiles.ceil_div(z["N"], together) * tiles.ceil_div(pixels, part)
    blocks = tiles.ceil_div(width, channels)
    passes = tiles.ceil_div(z["R"], r) * tiles.ceil_div(z["S"], s)
    share = _share(items * blocks, threads)
    rows, span = z["N"] * pixels, z["R"] * z["S"] * depth * z["G"]
    per_group = width // z["G"] if z["G"] > 1 else channels
    in_place = tiles.in_place(z, attrs)
    return {
        "mac": rows * span * in_lanes(per_group) * (blocks if z["G"] == 1 else 1) * share,
        "gather": 0 if in_place else rows * span * blocks * share,
        "left": rows * span * blocks * tiles.ceil_div(per_group, 3 * LANES) * share,
        "right": items * blocks * span * per_group * share,
        "sums": rows * width * passes * share,
        "tile": items * blocks * passes * z["G"] * share,
        "again": (span * width // z["G"] * itemsize, items),
    }


@states_work("conv2d.grad_w", way=way, alone=True, streams=True)
def grad_w(launch, threads):
    """Products of slices of the pixels, added up."""
    call = product(launch)
    z, attrs, _ = convolution(call)
    per_slice, part, r, s, channels = tiles.grad_w_tiles(z, attrs)
    pixels, depth = z["N"] * z["P"] * z["Q"], z["C"] // z["G"]
    span = z["R"] * z["S"] * depth
    cuts = tiles.ceil_div(z["R"], r) * tiles.ceil_div(z["S"], s) * tiles.ceil_div(depth, channels)
    slices, parts = tiles.ceil_div(pixels, per_slice), tiles.ceil_div(pixels, part)
    share = _share(slices * cuts, threads)
    return {
        "mac": pixels * span * in_lanes(z["K"] // z["G"]) * z["G"] * share,
        "gather": 0 if tiles.in_place(z, attrs) else pixels * span * z["G"] * share,
        "left": pixels * span * z["G"] * share,
        "right": pixels * z["K"] * cuts * share,
        "sums": parts * span * z["K"] * share,
        "tile": parts * cuts * z["G"] * share,
        "partial": slices * span * z["K"] if slices > 1 else 0,
        "again": (2 * span * z["K"] * _itemsize(call, "dw"), parts // slices),
    }


@states_work("conv2d.grad_x", way=way, alone=True, streams=True)
def grad_x(launch, threads):
    """A product with the turned kernel, or one that is scattered."""
    call = product(launch)
    z, attrs, _ = convolution(call)
    samples, part, channels, pixels, r, s = tiles.grad_x_tiles(z, attrs)
    if tiles.turns(z, attrs) or tiles.in_place(z, attrs):
        cut = (samples, part, channels, r, s)
        terms = _gathered(z, attrs, cut, threads, z["H"] * z["W"], z["C"], z["K"] // z["G"], _itemsize(call, "w"))
        turned = z["R"] * z["S"] * z["C"] // z["G"] * z["K"] if tiles.turns(z, attrs) else 0
        return terms | {"weight": turned}
    depth = z["C"] // z["G"]
    items = tiles.ceil_div(z["N"], samples) * tiles.ceil_div(z["H"], part) * tiles.ceil_div(z["C"], channels)
    share, rows, span = _share(items, threads), z["N"] * z["P"] * z["Q"], z["R"] * z["S"] * depth
    inner = max(items, tiles.ceil_div(rows, pixels)) * tiles.ceil_div(z["R"], r) * tiles.ceil_div(z["S"], s)
    return {
        "mac": rows * z["K"] * in_lanes(span) * share,
        "scatter": rows * span * z["G"] * share,
        "left": rows * z["K"] * share,
        "right": inner * span * z["K"] * share,
        "tile": inner * z["G"] * share,
        "again": (span * z["K"] * _itemsize(call, "w"), inner),
    }
