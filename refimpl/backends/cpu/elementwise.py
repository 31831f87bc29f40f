"""Operators that make each element of one: a run of elements at a time, in vectors of LANES.

Every element goes through the same vector operations wherever it lies, so its bits depend on nothing else. What an
exponential function does inside counts nothing in what a kernel executes, as it does not in a reference kernel. All
arrays of a kernel have as many elements; dx may be dy.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, Ops, executes, pieces
from ...kernels.kernel import fast, inline
from ...ops.gelu import CUBE, DENSITY, ROOT, SQUARE
from ...ops.hard_swish import SIXTH, THIRD
from .elementary import LOGISTIC, TAIL_OPS, logistic, magnitude, power_of_e, tail
from .rows import lanes
from .simd import LANES, address, chosen, load, splat, store

RUN = 4096  # elements of an item, a multiple of LANES


def each(ops: Ops):
    """The statement of a kernel that does this to every element of its first array."""
    return lambda y, *_: ops * sum(lanes(count) * times for count, times in pieces(y.size, RUN))


@inline
def map_one(function, y, x, first, size):
    """y = function(y, x) on the run from element `first` on, of `size` in all. Arrays are addresses."""
    last = min(first + RUN, size)
    for i in range(first, last, LANES):
        m = min(LANES, last - i)
        store(y, i, function(y, load(x, i, m)), m)


@inline
def map_two(function, dx, dy, x, first, size):
    """dx = function(dx, dy, x), as `map_one`."""
    last = min(first + RUN, size)
    for i in range(first, last, LANES):
        m = min(LANES, last - i)
        store(dx, i, function(dx, load(dy, i, m), load(x, i, m)), m)


@inline
def of_sigmoid(like, v):
    """1 / (1 + exp(−v)). like: an address of the dtype, as below."""
    return logistic(v, splat(like, 0.0), splat(like, 1.0))


@inline
def sigmoid_slope(like, g, y):
    """g·y·(1 − y), without a product of three."""
    return y * (g - g * y)


@inline
def of_silu(like, v):
    """v / (1 + exp(−v))."""
    return v * logistic(v, splat(like, 0.0), splat(like, 1.0))


@inline
def silu_slope(like, g, v):
    """g·(s + v·s·(1 − s)), s = 1 / (1 + exp(−v))."""
    zero, one = splat(like, 0.0), splat(like, 1.0)
    power = power_of_e(zero - magnitude(v, zero))
    total = one + power
    s = chosen(v, one, power) / total
    return g * (s + v * (power / (total * total)))


@inline
def ramp(like, v, slope):
    """slope·v + 1/2 where −3 < v < 3, 0 below and 1 above."""
    three, zero = splat(like, 3.0), splat(like, 0.0)
    factor = chosen(zero - three - v, zero, splat(like, slope) * v + splat(like, 0.5))
    return chosen(v - three, splat(like, 1.0), factor)


@inline
def of_hard_swish(like, v):
    """v·min(max(v/6 + 1/2, 0), 1)."""
    return v * ramp(like, v, SIXTH)


@inline
def hard_swish_slope(like, g, v):
    """g·(v/3 + 1/2) where −3 < v < 3, nothing below and g above."""
    return g * ramp(like, v, THIRD)


@inline
def of_gelu(like, v):
    """v·Φ(v), in float32."""
    zero, one = splat(like, 0.0), splat(like, 1.0)
    outside = tail(like, magnitude(v, zero), power_of_e(splat(like, -0.5) * (v * v)))
    return v * chosen(v, one - outside, outside)


@inline
def gelu_slope(like, g, v):
    """g·(Φ(v) + v·∂Φ/∂v), in float32."""
    zero, one = splat(like, 0.0), splat(like, 1.0)
    e = power_of_e(splat(like, -0.5) * (v * v))
    outside = tail(like, magnitude(v, zero), e)
    return g * (chosen(v, one - outside, outside) + v * (splat(like, DENSITY) * e))


@inline
def of_approximate_gelu(like, v):
    """v·(1 + tanh u) / 2 = v / (1 + exp(−2u)), u = √(2/π)·(v + 0.044715·v³)."""
    u = splat(like, 2 * ROOT) * (v + splat(like, CUBE) * (v * v * v))
    return v * logistic(u, splat(like, 0.0), splat(like, 1.0))


@inline
def approximate_gelu_slope(like, g, v):
    """g·(s + v·s·(1 − s)·2·∂u/∂v), s = (1 + tanh u) / 2."""
    zero, one = splat(like, 0.0), splat(like, 1.0)
    square = v * v
    u = splat(like, 2 * ROOT) * (v + splat(like, CUBE) * (square * v))
    power = power_of_e(zero - magnitude(u, zero))
    total = one + power
    slope = splat(like, 2 * ROOT) * (one + splat(like, SQUARE) * square)
    return g * (chosen(u, one, power) / total + v * (power / (total * total) * slope))


@inline
def runs(y):
    """Items of an array."""
    return (y.size + RUN - 1) // RUN


@executes(each(LOGISTIC))
@fast
def sigmoid(y, x):
    """Output y = 1 / (1 + exp(−x))."""
    for t in prange(runs(y)):
        map_one(of_sigmoid, address(y), address(x), np.int64(t) * RUN, y.size)


@executes(each(MUL * 2 + ADD))
@fast
def sigmoid_grad_x(dx, dy, y):
    """Gradient of x from dy and y."""
    for t in prange(runs(dx)):
        map_two(sigmoid_slope, address(dx), address(dy), address(y), np.int64(t) * RUN, dx.size)


@executes(each(LOGISTIC + MUL))
@fast
def silu(y, x):
    """Output y = x / (1 + exp(−x))."""
    for t in prange(runs(y)):
        map_one(of_silu, address(y), address(x), np.int64(t) * RUN, y.size)


@executes(each(LOGISTIC + MUL * 3 + ADD))
@fast
def silu_grad_x(dx, dy, x):
    """Gradient of x from dy and x."""
    for t in prange(runs(dx)):
        map_two(silu_slope, address(dx), address(dy), address(x), np.int64(t) * RUN, dx.size)


@executes(each(MUL * 2 + ADD * 4))
@fast
def hard_swish(y, x):
    """Output y = x·min(max(x/6 + 1/2, 0), 1)."""
    for t in prange(runs(y)):
        map_one(of_hard_swish, address(y), address(x), np.int64(t) * RUN, y.size)


@executes(each(MUL * 2 + ADD * 4))
@fast
def hard_swish_grad_x(dx, dy, x):
    """Gradient of x from dy and x."""
    for t in prange(runs(dx)):
        map_two(hard_swish_slope, address(dx), address(dy), address(x), np.int64(t) * RUN, dx.size)


@executes(each(TAIL_OPS + MUL * 3 + ADD * 2))
@fast
def gelu(y, x):
    """Output y = x·Φ(x), all of float32."""
    for t in prange(runs(y)):
        map_one(of_gelu, address(y), address(x), np.int64(t) * RUN, y.size)


@executes(each(TAIL_OPS + MUL * 5 + ADD * 3))
@fast
def gelu_grad_x(dx, dy, x):
    """Gradient of x from dy and x, all of float32."""
    for t in prange(runs(dx)):
        map_two(gelu_slope, address(dx), address(dy), address(x), np.int64(t) * RUN, dx.size)


@executes(each(LOGISTIC + MUL * 5 + ADD))
@fast
def approximate_gelu(y, x):
    """Output y = x·(1 + tanh u) / 2."""
    for t in prange(runs(y)):
        map_one(of_approximate_gelu, address(y), address(x), np.int64(t) * RUN, y.size)


@executes(each(LOGISTIC + MUL * 10 + ADD * 3))
@fast
def approximate_gelu_grad_x(dx, dy, x):
    """Gradient of x from dy and x."""
    for t in prange(runs(dx)):
        map_two(approximate_gelu_slope, address(dx), address(dy), address(x), np.int64(t) * RUN, dx.size)


@executes(each(MAC))
@fast
def affine(y, x, factor, offset):
    """Output y = factor·x + offset; y may be x."""
    for t in prange(runs(y)):
        first = np.int64(t) * RUN
        last = min(first + RUN, y.size)
        into, of = address(y), address(x)
        for i in range(first, last, LANES):
            m = min(LANES, last - i)
            store(into, i, splat(of, factor) * load(of, i, m) + splat(of, offset), m)
