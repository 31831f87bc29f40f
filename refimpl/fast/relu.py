"""Rectifiers on the CPU: forward with its mask in one sweep, and backward through the mask and a frozen batch norm.

Activations are numbered as in the other fast kernels: 0 none, 1 relu, 2 relu6. A sample's mask has one bit an element:
bit j of byte b is element 8·b + j. An item is a run of whole mask bytes of one sample, so no two items share a byte.
"""

import numpy as np
from numba import prange

from ..kernel import fast, inline

RUN = 4096  # elements of an item, a multiple of 8


@inline
def runs(elements):
    """Items of a sample."""
    return (elements + RUN - 1) // RUN


@fast
def forward(y, mask, a, b, act):
    """Write y (N, E) = act(a + b) and mask (N, B) uint8; b (N, E) or (0, 0) for none; mask (0, 0) for none."""
    elements = a.shape[1]
    per = runs(elements)
    two, keep = b.shape[0] > 0, mask.shape[0] > 0
    zero, six = a.dtype.type(0), a.dtype.type(6)
    for t in prange(a.shape[0] * per):
        n = np.int64(t) // per
        first = np.int64(t) % per * RUN
        last = min(first + RUN, elements)
        if two:
            for e in range(first, last):
                v = a[n, e] + b[n, e]
                v = zero if v <= zero else v
                y[n, e] = six if (act == 2) & (v > six) else v
        else:
            for e in range(first, last):
                v = a[n, e]
                v = zero if v <= zero else v
                y[n, e] = six if (act == 2) & (v > six) else v
        if keep:
            for byte in range(first // 8, (last + 7) // 8):
                bits = 0
                for j in range(min(8, elements - 8 * byte)):
                    v = y[n, 8 * byte + j]
                    passes = not ((v <= zero) | ((act == 2) & (v >= six)))
                    bits |= int(passes) << j
                mask[n, byte] = bits


@fast
def grad_x(dx, dy, mask, scale):
    """Write dx (N, E) = dy·scale where the mask's bit is set, else 0; dx may be dy. A mask (0, 0) sets every bit.

    scale (C,): factor of each channel, element e of a sample being in channel e mod C; (0,) for none.
    """
    elements = dy.shape[1]
    per = runs(elements)
    channels = scale.shape[0]
    zero = dy.dtype.type(0)
    for t in prange(dy.shape[0] * per):
        n = np.int64(t) // per
        first = np.int64(t) % per * RUN
        last = min(first + RUN, elements)
        if channels and not mask.shape[0]:
            c = first % channels
            for e in range(first, last):
                dx[n, e] = dy[n, e] * scale[c]
                c += 1
                c = 0 if c == channels else c
        elif channels:
            c = first % channels
            for e in range(first, last):
                v = dy[n, e] * scale[c]
                dx[n, e] = v if (mask[n, e >> 3] >> (e & 7)) & 1 else zero
                c += 1
                c = 0 if c == channels else c
        else:
            for e in range(first, last):
                v = dy[n, e]
                dx[n, e] = v if (mask[n, e >> 3] >> (e & 7)) & 1 else zero
