"""Pruned error maps (arXiv 2007.03213): products on tiles look the kept channels up, no map or kernel of them is kept.

The score of each channel is a sum over all pixels of dy and all taps of w, in slices; dy is read through the mask of a
rectifier and a frozen norm there too, so that their gradients are not stored either. Where others than the products on
tiles read the kept channels (a bias, a filter, a depthwise convolution), these are copied side by side.
"""

import math
from typing import NamedTuple

from ...compiler import grouping
from ...compiler.executed import ADD, MAC, MUL, NOTHING, Ops, executes
from ...compiler.grouping import Arrival, convolution
from ...compiler.ir import AtBatch, Buffer, Call, Launch, Prefix
from ...compiler.lower import Lowering
from ...kernels.cuda import simulated
from ...kernels.kernel import Kernel
from ...methods import error_map_pruning as emp
from ..common import named, present, through
from . import conv_rules
from .conv_rules import in_slices, narrow, of_input, pixels
from .tile import up

ITEMS, ROWS = 1 << 14, 64  # sums that keep a GPU busy, and pixels that are worth one of them


def score_slices(t, partial, dy, mask, scale, w, gamma_w=1.0, gamma_dy=1.0, pixels=1, length=1):
    """Parts of each channel's score, (slices, K): γ₁·N·‖w_k‖₁ + γ₂·‖dy_k‖₁ over a slice of both, eq. (11) and (14).

    dy: (N·pixels, K), of which a slice has `length` rows, where mask, (N, B), has a bit, times scale, (K,), each empty
    where there is none; w: (taps, K). For slices·K items.
    """
    s, k = divmod(t, dy.shape[1])
    zero = partial.dtype.type(0)
    end = (s + 1) * length
    if end > dy.shape[0]:
        end = dy.shape[0]
    total = zero
    for row in range(s * length, end):
        value = abs(dy[row, k])
        if mask.shape[0]:
            n = row // pixels
            e = (row - n * pixels) * dy.shape[1] + k
            value = value if (mask[n, e >> 3] >> (e & 7)) & 1 else zero
        total += value
    if scale.shape[0]:
        total *= abs(scale[k])
    norm = zero
    for tap in range(w.shape[0] * s // partial.shape[0], w.shape[0] * (s + 1) // partial.shape[0]):
        norm += abs(w[tap, k])
    partial[s, k] = gamma_dy * total + gamma_w * partial.dtype.type(dy.shape[0] // pixels) * norm


def add_kept_slices(t, dw, partial, rank):
    """Gradient of w, (A, K), eq. (12): the sum of partial, (slices, A, L), at the channels of rank, (K,), below L.

    The others are 0. For A·K items.
    """
    row, k = divmod(t, dw.shape[1])
    place = rank[k]
    total = dw.dtype.type(0)
    if place < partial.shape[2]:
        for s in range(partial.shape[0]):
            total += partial[s, row, place]
    dw[row, k] = total


def _score_executes(items, partial, dy, mask, scale, w, gamma_w, gamma_dy, pixels, length) -> Ops:
    scaled = MUL * partial.size if scale.shape[0] else NOTHING
    return ADD * (dy.size + w.size) + (MAC + MUL) * partial.size + MUL * partial.size + scaled


def _spread_executes(items, dw, partial, rank) -> Ops:
    return ADD * partial.size


SCORE = executes(_score_executes)(Kernel(score_slices).gpu)
SPREAD = executes(_spread_executes)(Kernel(add_kept_slices).gpu)


class Pruned(NamedTuple):
    """The calls that copy the kept channels of dy, and those that are products of them."""

    keep_dy: Call
    grad_w: Call
    spread_w: Call
    grad_x: Call | None
    keep_w: Call | None


def pruned(lowering: Lowering, keep_dy: Call) -> Pruned | None:
    """The gradients of a pruned convolution; None where others read its kept channels, or tiles would be empty."""
    readers = lowering.all_readers(keep_dy.arrays["dy_kept"], *grouping.GRAD_W, *grouping.GRAD_X)
    grad_w = next((c for c in readers if c.passed in grouping.GRAD_W), None)
    grad_x = next((c for c in readers if c.passed in grouping.GRAD_X), None)
    if grad_w is None or any(map(narrow, readers)) or convolution(grad_w).sizes["G"] > 1:
        return None
    spread_w = lowering.reader(grad_w.arrays["dw"], emp.spread_w)
    keep_w = lowering.writer(grad_x.arrays["w"]) if grad_x else None
    if spread_w is None or keep_w and lowering.reader(keep_w.arrays["w_kept"], *grouping.GRAD_X) is None:
        return None
    return Pruned(keep_dy, grad_w, spread_w, grad_x, keep_w)


def score(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The score of each channel; of what dy passes before it nothing is stored where the products read through it."""
    arrival = Arrival(readers=(call,))
    if call.passed is not emp.score:
        arrival = grouping.arrival(lowering, call, emp.score, emp.keep_dy)
        keep_dy = next((c for c in arrival.readers if c.passed is emp.keep_dy), None)
        if len(arrival.readers) != 2 or keep_dy is None or pruned(lowering, keep_dy) is None:
            return None
        lowering.notes[keep_dy] = arrival
    own = next(c for c in arrival.readers if c.passed is emp.score)
    dy, (mask, scale) = arrival.dy.reshape(own.arrays["dy"].shape), through(arrival)
    each, channels = math.prod(dy.shape[1:3]), dy.shape[3]
    rows, w = dy.shape[0] * each, pixels(own.arrays["w"])
    number = 2 if simulated() else max(1, min(up(ITEMS, channels), rows // ROWS))
    length = up(rows, number)
    number = up(rows, length)

    def slices(n: int) -> int:
        return up(n * dy.batched * each, length)

    partial = Buffer(f"{own.node}.score_slices", (number, channels), dy.dtype, "arena")
    gammas = (dy.dtype.type(own.attrs[name]) for name in ("gamma_w", "gamma_dy"))
    items = AtBatch(lambda n: slices(n) * channels)
    args = (items, Prefix(partial, slices), pixels(dy), mask, scale, w, *gammas, each, length)
    covers, scores = (*arrival.passed, own), own.arrays["scores"]
    added = (channels, scores, Prefix(partial, slices))
    return [
        Launch(named(covers), SCORE, args, present(dy, mask, scale, w), (partial,), covers),
        Launch(f"{own.node} add slices of scores", conv_rules.ADD, added, (partial,), (scores,), ()),
    ]


def gradients(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradients of a pruned convolution of one group, of the kept channels of dy and w where they lie."""
    calls = pruned(lowering, call)
    if calls is None:
        return None
    arrival, kept = lowering.notes.get(call, Arrival(readers=(call,))), call.arrays["kept"]
    dy = pixels(arrival.dy.reshape(call.arrays["dy"].shape)), *through(arrival), kept
    sizes, attrs, a = convolution(calls.grad_w)
    spread = calls.spread_w.arrays["dw"]
    product, partial = in_slices((call, calls.grad_w), calls.grad_w, a["dw"], dy, a["x"], sizes, attrs)
    rows, wide = math.prod(spread.shape[:3]), spread.shape[3]
    rank, whole = calls.spread_w.arrays["rank"], spread.reshape((rows, wide))
    slices = Prefix(partial.buffer.reshape((partial.buffer.shape[0], rows, sizes["K"])), partial.length)
    args, reads = (rows * wide, whole, slices, rank), (partial.buffer, rank)
    made = [product, Launch(calls.spread_w.name, SPREAD, args, reads, (spread,), (calls.spread_w,))]
    if calls.grad_x and calls.keep_w:
        sizes, attrs, a = convolution(calls.grad_x)
        made.append(of_input((calls.keep_w, calls.grad_x), a["dx"], dy, calls.keep_w.arrays["w"], sizes, attrs))
    return made


RULES = {  # rule → the passes of the calls that it begins at
    score: (emp.score, *grouping.PASSED),
    gradients: (emp.keep_dy,),
}
