"""Depthwise convolutions: what follows forward is done there, dy is read through what it passes.

The gradient of the weights is that of all channels, or of those that sparse update chose, whose x was copied side by
side.
"""

from ...compiler import grouping
from ...compiler.grouping import Arrival, convolution
from ...compiler.ir import AtBatch, Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...kernels.cuda import simulated
from ..common import absent, activation, named, present, through
from . import depthwise
from .conv_rules import EVERY, pixels, summed
from .convolution import geometry_of
from .sparse_update_rules import GRAD_W as CHOSEN
from .sparse_update_rules import of_chosen
from .tile import up

ITEMS, ROWS = 1 << 14, 64  # threads that keep a GPU busy, and output pixels that are worth one of them
GRADIENTS = (*grouping.GRAD_X, *grouping.GRAD_W, CHOSEN)


def rows_of(buffer: Buffer) -> int:
    """Rows of maps of a sample of (N, H, W, C)."""
    return buffer.batched * buffer.shape[1]


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
    x, w, y = pixels(arrays["x"]), arrays["w"], pixels(whole)
    each = rows_of(whole) * up(sizes["Q"], depthwise.EACH) * sizes["C"]
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
    dy = pixels(arrival.dy.reshape(a["dy"].shape)), *through(arrival)
    if call.passed in grouping.GRAD_X:
        each = rows_of(a["dx"]) * up(sizes["W"], depthwise.EACH) * sizes["C"]
        dx = pixels(a["dx"])
        args = (AtBatch(lambda n: n * each), dx, *dy, a["w"], geometry)
        return [Launch(named(covers), depthwise.GRAD_X, args, (*present(*dy), a["w"]), (dx,), covers)]
    operands = *dy, call.arrays.get("chosen", EVERY), pixels(a["x"])
    return of_weights(covers, call, a["dw"], operands, geometry)


def of_weights(
    covers: tuple[Call, ...], call: Call, dw: Buffer, operands: tuple, geometry: tuple[int, ...]
) -> list[Launch]:  # fmt: skip
    """The launches of the gradient of the weights, which adds its slices where it has several.

    operands: dy (pixels, C), mask and scale before it, its channels that are kept, and x (pixels, M).
    """
    dy, channels = operands[0], dw.shape[3]
    rows = dy.shape[0]
    number = 2 if simulated() else max(1, min(up(ITEMS, channels), rows // ROWS))
    length = up(rows, number)
    partial = Buffer(f"{call.node}.dw_slices", (up(rows, length), *dw.shape), dw.dtype, "arena")

    def slices(n: int) -> int:
        return up(n * dy.batched, length)

    made, items = Prefix(partial, slices), AtBatch(lambda n: slices(n) * channels)
    args = (items, made, *operands, geometry, length)
    product = Launch(named(covers), depthwise.GRAD_W, args, present(*operands), (partial,), covers)
    return summed(call, dw, product, made)


RULES = {  # rule → the passes of the calls that it begins at
    forward: grouping.FORWARD,
    backward: (*GRADIENTS, *grouping.PASSED),
}
