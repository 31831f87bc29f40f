"""Rectifiers on the CPU: forward with its mask in one sweep, and backward through the mask and a frozen batch norm.

Activations are those of `activation`. A sample's mask has one bit an element:
bit j of byte b is element 8·b + j. An item is a run of whole mask bytes of one sample, so no two items share a byte.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MUL, NOTHING, Ops, executes, pieces
from ...kernels.kernel import fast, inline
from ..activation import RELU6
from .rows import bounds, lanes
from .simd import LANES, address, clamp, given, inside, keep_bits, load, splat, store

RUN = 4096  # elements of an item, a multiple of LANES


@inline
def runs(elements):
    """Items of a sample."""
    return (elements + RUN - 1) // RUN


@inline
def store_bits(mask, byte, bits, m):
    """Write the bits of m lanes to mask bytes from `byte` on."""
    mask[byte] = np.uint8(bits & 255)
    if m > 8:
        mask[byte + 1] = np.uint8(bits >> 8)


@inline
def load_bits(mask, start, size, e):
    """Bits of the LANES elements from e on, of the sample whose `size` mask bytes begin at byte `start`."""
    byte = e >> 3
    word = np.uint64(mask[start + byte])
    if byte + 1 < size:
        word |= np.uint64(mask[start + byte + 1]) << np.uint64(8)
    if e & 7 and byte + 2 < size:
        word |= np.uint64(mask[start + byte + 2]) << np.uint64(16)
    return word >> np.uint64(e & 7)


@inline
def forward_run(y, mask, a, b, act, base, byte, count):
    """`forward` on `count` elements from element `base` on, whose mask begins at `byte`. Arrays are addresses."""
    lo, hi = bounds(a, act)
    bottom, top = splat(a, 0.0), splat(a, 6.0 if act == RELU6 else np.nan)  # NaN is no bound: infinity passes a relu
    for e in range(0, count, LANES):
        i, m = base + e, min(LANES, count - e)
        v = load(a, i, m)
        if given(b):
            v = v + load(b, i, m)
        v = clamp(v, lo, hi)
        store(y, i, v, m)
        if given(mask):
            store_bits(mask, byte + (e >> 3), inside(v, bottom, top), m)


@executes(lambda y, mask, a, b, act: (ADD if b.size else NOTHING) * (a.shape[0] * lanes(a.shape[1])))
@fast
def forward(y, mask, a, b, act):
    """Write y (N, E) = act(a + b) and mask (N, B) uint8; b (N, E) or (0, 0) for none; mask (0, 0) for none."""
    elements = a.shape[1]
    per, size = runs(elements), mask.shape[1]
    for t in prange(a.shape[0] * per):
        n = np.int64(t) // per
        first = np.int64(t) % per * RUN
        count = min(RUN, elements - first)
        forward_run(
            address(y), address(mask), address(a), address(b), act, n * elements + first, n * size + first // 8, count
        )


@inline
def grad_run(dx, dy, mask, scale, channels, base, start, size, first, last):
    """`grad_x` on the elements first … last−1 of the sample that begins at element `base` and mask byte `start`."""
    e = first
    c = first % channels if given(scale) else 0
    while e < last:
        m = min(LANES, last - e)
        if given(scale):
            m = min(m, channels - c)
        v = load(dy, base + e, m)
        if given(scale):
            v = v * load(scale, c, m)
            c = c + m if c + m < channels else 0
        if given(mask):
            v = keep_bits(v, load_bits(mask, start, size, e))
        store(dx, base + e, v, m)
        e += m


def grad_x_executes(dx, dy, mask, scale) -> Ops:
    """Vectors end where the channels of a pixel do, and where a run does."""
    if not scale.size:
        return NOTHING
    channels, vectors = scale.size, 0
    for first in range(0, dy.shape[1], RUN):
        count = min(RUN, dy.shape[1] - first)
        head = min(count, -first % channels)
        vectors += lanes(head)
        for length, times in pieces(count - head, channels):
            vectors += lanes(length) * times
    return MUL * (dy.shape[0] * vectors)


@executes(grad_x_executes)
@fast
def grad_x(dx, dy, mask, scale):
    """Write dx (N, E) = dy·scale where the mask's bit is set, else 0; dx may be dy. A mask (0, 0) sets every bit.

    scale (C,): factor of each channel, element e of a sample being in channel e mod C; (0,) for none.
    """
    elements = dy.shape[1]
    per, size = runs(elements), mask.shape[1]
    channels = scale.shape[0]
    for t in prange(dy.shape[0] * per):
        n = np.int64(t) // per
        first = np.int64(t) % per * RUN
        last = min(first + RUN, elements)
        grad_run(
            address(dx), address(dy), address(mask), address(scale), channels,
            n * elements, n * size, size, first, last,
        )  # fmt: skip
