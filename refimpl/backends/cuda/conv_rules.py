"""Dense convolutions and linear layers on tiles: what follows forward is done there, dy is read through what it passes.

Those of few channels a group are left to their reference kernels, a thread for each result: tiles would be zeros.
"""

import math

import numpy as np

from ...compiler import grouping
from ...compiler.executed import executes
from ...compiler.grouping import Arrival, convolution
from ...compiler.ir import Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...compiler.two_stage import ADD_SLICES, EXECUTED
from ..common import absent, activation, named, present, through
from . import convolution as on_tiles
from .tile import FEW


def pixels(buffer: Buffer) -> Buffer:
    """A map as (pixels, channels)."""
    return buffer.reshape((math.prod(buffer.shape[:-1]), buffer.shape[-1]))


def narrow(call: Call) -> bool:
    """Has a group so few channels or outputs that a thread for each result does better than a tile?"""
    z = convolution(call).sizes
    return grouping.depthwise(call) or min(z["C"], z["K"]) // z["G"] < FEW


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
    geometry, y = on_tiles.Geometry.of(sizes, attrs), pixels(chain.y.reshape(arrays["y"].shape))
    args = (y, x, w, scale, shift, residual, geometry, activation(chain.rectifier))
    reads = present(x, w, scale, shift, residual)
    return [Launch(named(chain.calls), on_tiles.FORWARD, args, reads, (y,), chain.calls)]


def backward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of a convolution, through the rectifier and the frozen norm after it."""
    arrival = grouping.arrival(lowering, call, *grouping.GRAD_X, *grouping.GRAD_W)
    if not arrival.readers or any(map(narrow, arrival.readers)):
        return None
    first, *others = arrival.readers
    covers = [(*arrival.passed, first), *((c,) for c in others)]
    made = (gradient(lowering, arrival, c, own) for c, own in zip(arrival.readers, covers, strict=True))
    return [launch for launches in made for launch in launches]


def gradient(lowering: Lowering, arrival: Arrival, call: Call, covers: tuple[Call, ...]) -> list[Launch]:
    """The launches of one gradient of a convolution."""
    sizes, attrs, a = convolution(call)
    dy = pixels(arrival.dy.reshape(a["dy"].shape)), *through(arrival), EVERY
    if call.passed in grouping.GRAD_X:
        return [of_input(covers, a["dx"], dy, a["w"], sizes, attrs)]
    return of_weights(lowering, covers, call, a["dw"], dy, a["x"], sizes, attrs)


EVERY = np.empty(0, np.int32)  # in the place of the channels that are kept, where all of them are
# dy (pixels, K), mask and scale before it, and the channels of it that are kept
Through = tuple[Buffer, Buffer | np.ndarray, Buffer | np.ndarray, Buffer | np.ndarray]


def of_input(
    covers: tuple[Call, ...], dx: Buffer, dy: Through, w: Buffer, sizes: dict, attrs: dict
) -> Launch:  # fmt: skip
    """The launch of the gradient of a convolution's input."""
    dx = pixels(dx)
    args = (dx, *dy, w, on_tiles.Geometry.of(sizes, attrs))
    return Launch(named(covers), on_tiles.GRAD_X, args, (*present(*dy), w), (dx,), covers)


def of_weights(
    lowering: Lowering, covers: tuple[Call, ...], call: Call, dw: Buffer, dy: Through, x: Buffer, sizes: dict,
    attrs: dict,
) -> list[Launch]:  # fmt: skip
    """The launches of the gradient of a convolution's weights; it adds its slices where it has several.

    sizes: at the full batch, of N maps with P·Q output pixels.
    """
    number, length = on_tiles.slices_of(sizes)
    geometry, x = on_tiles.Geometry.of(sizes, attrs), pixels(x)
    reads = (*present(*dy), x)
    if number == 1:
        whole = dw.reshape((1, *dw.shape))
        return [Launch(named(covers), on_tiles.GRAD_W, (whole, *dy, x, geometry, length), reads, (whole,), covers)]
    partial, elements = lowering.scratch(call, "slices", (number, *dw.shape), dw.dtype), math.prod(dw.shape)
    batched = dy[0].batched  # output pixels of a sample

    def slices(n: int) -> int:
        return -(-n * batched // length)

    args = (Prefix(partial, slices), *dy, x, geometry, length)
    added = dw.reshape((elements,)), Prefix(partial.reshape((number, elements)), slices)
    return [
        Launch(named(covers), on_tiles.GRAD_W, args, reads, (partial,), covers),
        Launch(f"{call.node} add slices of dw", ADD, (elements, *added), (partial,), (dw,), ()),
    ]


ADD = executes(EXECUTED[ADD_SLICES])(ADD_SLICES.gpu)
RULES = {  # rule → the passes of the calls that it begins at
    forward: grouping.FORWARD,
    backward: (*grouping.GRAD_X, *grouping.GRAD_W, *grouping.PASSED),
}
