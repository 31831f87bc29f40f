"""Floats as whole numbers for 8-bit training, in runs that the compiler makes vectors of: the bits of the reference."""

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import types
from numba.core.extending import intrinsic

from ...compiler.executed import ADD, IMUL, MUL, NOTHING, executes
from ...kernels.kernel import fast
from ...kernels.random import MASK, key_of, philox

RUN = 4096  # elements of an item
WORDS = 2.0**32
ROUNDS = IMUL * 9  # of a draw: the first of ten multiplies a place, and the key goes on in plain numbers


@intrinsic
def magnitude(typingctx, value):
    """The bits of |value|, an int64: they are ordered as the magnitudes are, and those of no number are the largest."""
    if not isinstance(value, types.Float):
        return None

    def generate(context, builder, sig, args):
        word = ir.IntType(value.bitwidth)
        bits = builder.bitcast(args[0], word)
        bits = builder.and_(bits, ir.Constant(word, 2 ** (value.bitwidth - 1) - 1))
        return bits if value.bitwidth == 64 else builder.zext(bits, ir.IntType(64))

    return types.int64(value), generate


@intrinsic
def of_bits(typingctx, bits, like):
    """The float of the type of `like` that has these bits."""
    if not isinstance(like, types.Float):
        return None

    def generate(context, builder, sig, args):
        word = ir.IntType(like.bitwidth)
        bits = args[0] if like.bitwidth == 64 else builder.trunc(args[0], word)
        return builder.bitcast(bits, args[1].type)

    return like(types.int64, like), generate


@executes(lambda most, v: NOTHING)
@fast
def largest(most, v):
    """Write most (N,), the largest magnitude of each sample of v (N, E), as `methods.quantized.most` states it."""
    for t in prange(v.shape[0]):
        found = np.int64(0)
        for e in range(v.shape[1]):
            found = max(found, magnitude(v[t, e]))
        most[t] = of_bits(found, most[t])


@executes(lambda q, v, scale, levels: ADD * v.size)
@fast
def nearest(q, v, scale, levels):
    """Write q (N, E), int8, from v (N, E) and scale (1,), as `methods.quantized.nearest` states it."""
    q_, v_ = q.reshape(-1), v.reshape(-1)
    most, least, half, divisor = v.dtype.type(levels), v.dtype.type(-levels), v.dtype.type(0.5), scale[0]
    for t in prange((q.size + RUN - 1) // RUN):
        start = np.int64(t) * RUN
        for e in range(start, min(start + RUN, q.size)):
            value = np.floor(v_[e] / divisor + half)
            value = value if value > least else least
            value = value if value < most else most
            q_[e] = np.int32(value)


@executes(lambda q, dy, scales, step, seed, levels, stream, second: (ROUNDS + ADD * 2 + MUL) * dy.size)
@fast
def stochastic(q, dy, scales, step, seed, levels, stream, second):
    """Write q (N, E), int8 or int16, from dy (N, E) and scales (N,), as `methods.quantized.stochastic` states it.

    second: by the second word of each draw, as `stochastic_wide` does.
    """
    q_, dy_, elements = q.reshape(-1), dy.reshape(-1), dy.shape[1]
    most, least, words = dy.dtype.type(levels), dy.dtype.type(-levels), dy.dtype.type(WORDS)
    one, none = dy.dtype.type(1), dy.dtype.type(0)
    runs = (elements + RUN - 1) // RUN
    for t in prange(dy.shape[0] * runs):
        n, run = divmod(np.int64(t), runs)
        start, scale = n * elements + run * RUN, scales[n]
        key, draw = key_of(seed[0], stream), step[0] & MASK
        for e in range(start, min(start + RUN, (n + 1) * elements)):
            word, other = philox(e & MASK, draw, key)
            if second:
                word = other
            ratio = dy_[e] / scale
            low = np.floor(ratio)
            up = one if word < np.int64((ratio - low) * words) else none
            value = low + up
            value = value if value > least else least
            value = value if value < most else most
            q_[e] = np.int32(value)
