"""Reading one row of a map through the batch norm and activation before it, LANES channels at a time.

Activations are numbered: 0 none, 1 relu, 2 relu6. `affine` (2, C) holds a and b of x̂ = act(a·x + b); `coef` (3, C)
holds A, B and C of ∂L/∂y = A·dz + B·y + C. Absent tables leave the row as it is.
"""

import numpy as np

from ..kernel import inline
from ..simd import LANES, clamp, given, load, prefetch, splat, store


@inline
def bounds(like, act):
    """Range that the activation lets through."""
    return splat(like, 0.0 if act > 0 else -np.inf), splat(like, 6.0 if act == 2 else np.inf)


@inline
def read_row(ring, at, step, x, i, columns, channels, m, affine, c, act):
    """ring[at + v·step …] = x̂[i + v·channels …] for every column v: one block of m channels from channel c on."""
    if not given(affine):
        for v in range(columns):
            store(ring, at + v * step, load(x, i + v * channels, m), LANES)
        return
    a, b = load(affine, c, m), load(affine, channels + c, m)
    lo, hi = bounds(x, act)
    for v in range(columns):
        prefetch(x, i + (v + columns) * channels)
        store(ring, at + v * step, clamp(load(x, i + v * channels, m) * a + b, lo, hi), LANES)


@inline
def read_gradient_row(ring, at, step, dz, y, i, columns, channels, m, coef, c):
    """ring[at + q·step …] = ∂L/∂y[i + q·channels …] for every column q: one block of m channels from channel c on."""
    if not given(coef):
        for q in range(columns):
            store(ring, at + q * step, load(dz, i + q * channels, m), LANES)
        return
    a = load(coef, c, m)
    if not given(y):
        for q in range(columns):
            store(ring, at + q * step, load(dz, i + q * channels, m) * a, LANES)
        return
    b, d = load(coef, channels + c, m), load(coef, 2 * channels + c, m)
    for q in range(columns):
        j = i + q * channels
        prefetch(dz, j + columns * channels)
        prefetch(y, j + columns * channels)
        store(ring, at + q * step, load(dz, j, m) * a + (load(y, j, m) * b + d), LANES)
