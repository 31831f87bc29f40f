"""Depthwise convolutions: what follows forward is done there, dy is read through what it passes.

The gradient of the weights is that of all channels, or of those that sparse update chose, whose x was copied side by
side.
"""

import math

from ...compiler import grouping
from ...compiler.grouping import Arrival, convolution
from ...compiler.ir import AtBatch, Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...kernels.cuda import simulated
from ..common import absent, activation, elements, named, present, through
from . import depthwise
from .conv_rules import EVERY, summed
from .convolution import geometry_of
from .sparse_update_rules import GRAD_W as CHOSEN
from .sparse_update_rules import of_chosen
from .tile import up

ITEMS, RUNS = 1 << 14, 16  # threads that keep a GPU busy, and runs of output pixels that are worth one of them
GRADIENTS = (*grouping.GRAD_X, *grouping.GRAD_W, CHOSEN)


def blocks_of(buffer: Buffer, rows: int, columns: int) -> int:
    """Blocks of so many pixels, and channels, of a sample of maps, (N, H, W, C)."""
    _, height, width, channels = buffer.shape
    return buffer.batched * up(height, rows) * up(width, columns) * channels


def by_tap(w: Buffer) -> Buffer:
    """Weights, (R, S, 1, C), as (taps, C)."""
    return w.reshape((math.prod(w.shape[:2]), w.shape[3]))


def forward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A depthwise convolution, the frozen norm and the activation after it, in one launch."""
    if not grouping.depthwise(call):
        return None
    chain = grouping.chain(lowering, call).before("pack").before("sum")
    if "b" in call.arrays:
        chain = chain.before("norm")  # the kernel adds one shift
    sizes, attrs, arrays = convolution(call)
    dtype, whole = call.arrays["y"].dtype, chain.y.reshape(arrays["y"].shape)
    scale, shift = absent(1, dtype), call.arrays.get("b")
    if chain.norm:
        scale, shift = chain.norm.arrays["scale"], chain.norm.arrays["shift"]
    shift = absent(1, dtype) if shift is None else shift
    x, w, y = elements(arrays["x"]), by_tap(arrays["w"]), elements(whole)
    each = blocks_of(whole, depthwise.ROWS, depthwise.EACH)
    args = (
        AtBatch(lambda n: n * each), y, x, w, scale, shift, geometry_of(sizes, attrs), activation(chain.rectifier),
    )  # fmt: skip
    reads = present(x, w, scale, shift)
    return [Launch(named(chain.calls), depthwise.FORWARD, args, reads, (y,), chain.calls)]


def backward(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of a depthwise convolution, through the rectifier and the frozen norm after it."""
    arrival = grouping.arrival(lowering, call, *GRADIENTS)
    if not arrival.readers or not all(map(grouping.depthwise, arrival.readers)):
        return None
    first, *others = arrival.readers
    covers = [(*arrival.passed, first), *((c,) for c in others)]
    made = (gradient(arrival, c, own) for c, own in zip(arrival.readers, covers, strict=True))
    return [launch for launches in made for launch in launches]


def gradient(arrival: Arrival, call: Call, covers: tuple[Call, ...]) -> list[Launch]:
    """The launches of one gradient."""
    sizes, attrs, a = convolution(call) if call.passed is not CHOSEN else of_chosen(call)
    geometry = geometry_of(sizes, attrs)
    dy = elements(arrival.dy), *through(arrival)
    if call.passed in grouping.GRAD_X:
        each, w = blocks_of(a["dx"], *depthwise.of_dx(*attrs["stride"])), by_tap(a["w"])
        dx = elements(a["dx"])
        args = (AtBatch(lambda n: n * each), dx, *dy, w, geometry)
        return [Launch(named(covers), depthwise.GRAD_X, args, (*present(*dy), w), (dx,), covers)]
    operands = *dy, call.arrays.get("chosen", EVERY), elements(a["x"])
    return of_weights(covers, call, a["dw"], operands, geometry)


def of_weights(
    covers: tuple[Call, ...], call: Call, dw: Buffer, operands: tuple, geometry: tuple[int, ...]
) -> list[Launch]:  # fmt: skip
    """The launches of the gradient of the weights, which adds its slices where it has several.

    operands: dy, mask and scale before it, its channels that are kept, and x.
    """
    dy, channels = operands[0], dw.shape[3]
    _, _, out_h, out_w, outputs, *_ = geometry
    samples, each = dy.shape[0] // (out_h * out_w * outputs), out_h * up(out_w, depthwise.EACH)
    number = 2 if simulated() else max(1, min(up(ITEMS, channels), samples * each // RUNS))
    length = up(samples * each, number)

    def slices(n: int) -> int:
        return up(n * each, length)

    partial = Buffer(f"{call.node}.dw_slices", (slices(samples), *dw.shape), dw.dtype, "arena")

    made, items = Prefix(partial, slices), AtBatch(lambda n: slices(n) * channels)
    args = (items, made, *operands, geometry, length)
    product = Launch(named(covers), depthwise.GRAD_W, args, present(*operands), (partial,), covers)
    return summed(call, dw, product, made)


RULES = {  # rule → the passes of the calls that it begins at
    forward: grouping.FORWARD,
    backward: (*GRADIENTS, *grouping.PASSED),
}
