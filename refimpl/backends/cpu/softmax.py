"""Softmax of rows, each while it lies in the fast cache. Letters as in `ops.softmax`.

What an exponential function does inside counts nothing, as in a reference kernel.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, executes
from ...kernels.kernel import fast, inline
from .elementary import power_of_e
from .moves import rows_of
from .rows import lanes
from .simd import LANES, address, clamp, load, splat, store


@inline
def largest(own, x, start, count):
    """The largest of x[start : start + count], NaN where the first is NaN; own: room for LANES elements at `start`."""
    top = x[start]
    if count >= LANES:
        of, highest = address(x), splat(address(x), np.inf)
        most = splat(of, top)
        for c in range(0, count - LANES, LANES):
            most = clamp(load(of, start + c, LANES), most, highest)
        most = clamp(load(of, start + count - LANES, LANES), most, highest)  # it overlaps the one before
        store(address(own), start, most, LANES)
        for c in range(LANES):
            top = own[start + c] if own[start + c] > top else top
        return top
    for c in range(count):
        top = x[start + c] if x[start + c] > top else top
    return top


@executes(lambda y, x: ADD * (x.shape[0] * (lanes(x.shape[1]) + x.shape[1])))
@fast
def forward(y, x):
    """Output y = exp(x − max_c x) / Σ_c exp(x − max_c x), (N, C), from x, (N, C)."""
    count, many = x.shape[1], rows_of(x.shape[1])
    into, of = y.reshape(-1), x.reshape(-1)
    for t in prange((x.shape[0] + many - 1) // many):
        first = np.int64(t) * many
        for n in range(first, min(first + many, x.shape[0])):
            start = n * count
            top = splat(address(of), largest(into, of, start, count))
            for c in range(0, count, LANES):
                m = min(LANES, count - c)
                store(address(into), start + c, power_of_e(load(address(of), start + c, m) - top), m)
            row, total = into[start : start + count], y.dtype.type(0)
            for c in range(count):
                total += row[c]
            for c in range(count):
                row[c] /= total


@executes(lambda dx, dy, y: (MAC + MUL + ADD) * dx.size)
@fast
def grad_x(dx, dy, y):
    """Gradient of x, (N, C): y·(dy − Σ_c dy·y), from dy and y, (N, C)."""
    count, many = y.shape[1], rows_of(y.shape[1])
    into, error, of = dx.reshape(-1), dy.reshape(-1), y.reshape(-1)
    for t in prange((y.shape[0] + many - 1) // many):
        first = np.int64(t) * many
        for n in range(first, min(first + many, y.shape[0])):
            run = slice(n * count, (n + 1) * count)
            back, given, share = into[run], error[run], of[run]
            along = dx.dtype.type(0)
            for c in range(count):
                along += given[c] * share[c]
            for c in range(count):
                back[c] = share[c] * (given[c] - along)
