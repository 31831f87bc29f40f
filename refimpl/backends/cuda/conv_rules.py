"""Dense convolutions and linear layers on tiles: what follows forward is done there, dy is read through what it passes.

Those of few outputs a group, or few results of another kind, are left to their reference kernels, a thread for each:
tiles would be zeros. Where few channels are summed over, the sum goes over taps and channels at once (`few_channels`).
"""

import math
from dataclasses import replace

import numpy as np

from ...compiler import grouping
from ...compiler.executed import executes
from ...compiler.grouping import Arrival, convolution
from ...compiler.ir import Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...compiler.two_stage import ADD_SLICES, EXECUTED
from ..common import absent, activation, named, present, through
from . import convolution as on_tiles
from . import few_channels
from .tile import FEW, up

NARROW = 4  # outputs or channels of a group along a tile's columns, below which it is mostly zeros


def pixels(buffer: Buffer) -> Buffer:
    """A map as (pixels, channels)."""
    return buffer.reshape((math.prod(buffer.shape[:-1]), buffer.shape[-1]))


def few(sizes: dict) -> bool:
    """Has a group so few channels or outputs that a thread for each result does better than a tile?"""
    return min(sizes["C"], sizes["K"]) // sizes["G"] < FEW


def narrow(call: Call) -> bool:
    """Is a thread for each result better at the call of a convolution, or is it depthwise?"""
    sizes = convolution(call).sizes
    channels, outputs = sizes["C"] // sizes["G"], sizes["K"] // sizes["G"]
    long = channels < FEW and sizes["R"] * sizes["S"] * channels > few_channels.MOST_TERMS
    columns = channels if call.passed in grouping.GRAD_X else outputs
    return grouping.depthwise(call) or columns < NARROW or long


def terms_together(sizes: dict) -> bool:
    """Are the channels of a group so few that a sum goes over those of all taps at once?"""
    return sizes["C"] // sizes["G"] < FEW


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A convolution, the frozen norm, the sum of two branches and the activation after it, in one launch."""
    if narrow(call):
        return None
    chain = grouping.chain(lowering, call).before("pack")
    if "b" in call.arrays:
        chain = chain.before("norm")  # the kernel adds one shift
    sizes, attrs, arrays = convolution(call)
    dtype = call.arrays["y"].dtype
    x, w = pixels(arrays["x"]), arrays["w"]
    scale, shift, residual = absent(1, dtype), call.arrays.get("b"), absent(2, dtype)
    if chain.norm:
        scale, shift = chain.norm.arrays["scale"], chain.norm.arrays["shift"]
    if chain.sum:
        residual = pixels(chain.residual.reshape(arrays["y"].shape))
    shift = absent(1, dtype) if shift is None else shift
    geometry, y = on_tiles.geometry_of(sizes, attrs), pixels(chain.y.reshape(arrays["y"].shape))
    kernel = on_tiles.FORWARD
    if terms_together(sizes):
        kernel, w = few_channels.FORWARD, w.reshape((math.prod(w.shape[:3]), w.shape[3]))
    args = (y, x, w, scale, shift, residual, geometry, activation(chain.rectifier))
    reads = present(x, w, scale, shift, residual)
    return [Launch(named(chain.calls), kernel, args, reads, (y,), chain.calls)]


def backward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of a convolution, through the rectifier and the frozen norm after it."""
    arrival = grouping.arrival(lowering, call, *grouping.GRAD_X, *grouping.GRAD_W)
    if not arrival.readers or any(map(narrow, arrival.readers)):
        return None
    first, *others = arrival.readers
    covers = [(*arrival.passed, first), *((c,) for c in others)]
    made = (gradient(arrival, c, own) for c, own in zip(arrival.readers, covers, strict=True))
    return [launch for launches in made for launch in launches]


def gradient(arrival: Arrival, call: Call, covers: tuple[Call, ...]) -> list[Launch]:
    """The launches of one gradient of a convolution."""
    sizes, attrs, a = convolution(call)
    dy = pixels(arrival.dy.reshape(a["dy"].shape)), *through(arrival), EVERY
    if call.passed in grouping.GRAD_X:
        return [of_input(covers, a["dx"], dy, a["w"], sizes, attrs)]
    return of_weights(covers, call, a["dw"], dy, a["x"], sizes, attrs)


EVERY = np.empty(0, np.int32)  # in the place of the channels that are kept, where all of them are
# dy (pixels, K), mask and scale before it, and the channels of it that are kept
Through = tuple[Buffer, Buffer | np.ndarray, Buffer | np.ndarray, Buffer | np.ndarray]


def of_input(
    covers: tuple[Call, ...], dx: Buffer, dy: Through, w: Buffer, sizes: dict, attrs: dict
) -> Launch:  # fmt: skip
    """The launch of the gradient of a convolution's input."""
    dx = pixels(dx)
    args = (dx, *dy, w, on_tiles.geometry_of(sizes, attrs))
    return Launch(named(covers), on_tiles.GRAD_X, args, (*present(*dy), w), (dx,), covers)


def in_slices(
    covers: tuple[Call, ...], call: Call, dw: Buffer, dy: Through, x: Buffer, sizes: dict, attrs: dict
) -> tuple[Launch, Prefix]:
    """The launch of the gradient of a convolution's weights, (slices, R, S, C/G, K), and these.

    sizes: at the full batch, of N maps with P·Q output pixels.
    """
    kernel, together = on_tiles.GRAD_W, sizes
    if terms_together(sizes):
        terms = sizes["R"] * sizes["S"] * sizes["C"]
        kernel, together = few_channels.GRAD_W, {**sizes, "C": terms, "R": 1, "S": 1}
    number, length = on_tiles.slices_of(together)
    geometry, x = on_tiles.geometry_of(sizes, attrs), pixels(x)
    partial = Buffer(f"{call.node}.slices", (number, *dw.shape), dw.dtype, "arena")
    batched = dy[0].batched  # output pixels of a sample
    made = Prefix(partial, lambda n: up(n * batched, length))
    args = (made, *dy, x, geometry, length)
    return Launch(named(covers), kernel, args, (*present(*dy), x), (partial,), covers), made


def of_weights(
    covers: tuple[Call, ...], call: Call, dw: Buffer, dy: Through, x: Buffer, sizes: dict, attrs: dict
) -> list[Launch]:  # fmt: skip
    """The launches of the same, into dw."""
    product, partial = in_slices(covers, call, dw, dy, x, sizes, attrs)
    return summed(call, dw, product, partial)


def summed(call: Call, dw: Buffer, product: Launch, partial: Prefix) -> list[Launch]:
    """The launch of a gradient of weights in slices, (slices, …), and where several are that which adds them to dw."""
    if partial.buffer.shape[0] == 1:
        whole = dw.reshape(partial.buffer.shape)
        args = tuple(whole if arg is partial else arg for arg in product.args)
        return [replace(product, args=args, writes=(whole,))]
    elements = math.prod(dw.shape)
    flat = Prefix(partial.buffer.reshape((partial.buffer.shape[0], elements)), partial.length)
    added = (elements, dw.reshape((elements,)), flat)
    return [product, Launch(f"{call.node} add slices of dw", ADD, added, (partial.buffer,), (dw,), ())]


ADD = executes(EXECUTED[ADD_SLICES])(ADD_SLICES.gpu)
RULES = {  # rule → the passes of the calls that it begins at
    forward: grouping.FORWARD,
    backward: (*grouping.GRAD_X, *grouping.GRAD_W, *grouping.PASSED),
}
