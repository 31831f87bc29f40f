"""Hard sigmoid with its mask in one sweep, and its gradient through the mask, whose bits are those of `relu`."""

import numpy as np
from numba import prange

from ...compiler.executed import MAC, MUL, executes
from ...kernels.kernel import fast
from .relu import RUN, load_bits, runs, store_bits
from .rows import lanes
from .simd import LANES, address, clamp, given, inside, keep_bits, load, splat, store


@executes(lambda y, mask, x, alpha, beta: MAC * (x.shape[0] * lanes(x.shape[1])))
@fast
def forward(y, mask, x, alpha, beta):
    """Write y (N, E) = min(max(alpha·x + beta, 0), 1) and mask (N, B) uint8, (0, 0) for none, from x (N, E)."""
    elements, size = x.shape[1], mask.shape[1]
    per = runs(elements)
    for t in prange(x.shape[0] * per):
        n, first = np.int64(t) // per, np.int64(t) % per * RUN
        into, of, bits = address(y), address(x), address(mask)
        zero, one = splat(of, 0.0), splat(of, 1.0)
        for e in range(first, min(first + RUN, elements), LANES):
            i, m = n * elements + e, min(LANES, elements - e)
            v = clamp(splat(of, alpha) * load(of, i, m) + splat(of, beta), zero, one)
            store(into, i, v, m)
            if given(bits):
                there = (1 << m) - 1  # lanes behind the last element hold beta
                store_bits(bits, n * size + (e >> 3), inside(v, zero, one) & there, m)


@executes(lambda dx, dy, mask, alpha: MUL * (dy.shape[0] * lanes(dy.shape[1])))
@fast
def grad_x(dx, dy, mask, alpha):
    """Write dx (N, E) = alpha·dy where the bit of mask (N, B) is set, else 0; dx may be dy."""
    elements, size = dy.shape[1], mask.shape[1]
    per = runs(elements)
    for t in prange(dy.shape[0] * per):
        n, first = np.int64(t) // per, np.int64(t) % per * RUN
        into, of, bits = address(dx), address(dy), address(mask)
        for e in range(first, min(first + RUN, elements), LANES):
            i, m = n * elements + e, min(LANES, elements - e)
            v = splat(of, alpha) * load(of, i, m)
            store(into, i, keep_bits(v, load_bits(bits, n * size, size, e)), m)
