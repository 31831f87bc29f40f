"""The exponential function and the tail of the normal distribution on vectors of LANES floats.

LLVM calls the C library for each lane of these, which takes ten times as long as a polynomial. Errors, of a result, in
units of its last place: see `tests/test_fast_elementwise.py`. NaN stays NaN. The polynomials are least-squares fits of
relative errors, reweighted until the largest ones are equal.
"""

import math

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic
from numba.core.typing.templates import signature

from ...compiler.executed import ADD, MAC, MUL
from ...kernels.kernel import inline
from .simd import LANES, Vector, chosen, splat

LOG2_E = 1 / math.log(2)
# bits of a float: dtype → (integer type, bits of the fraction, offset of the exponent)
BITS = {types.float32: (ir.IntType(32), 23, 127), types.float64: (ir.IntType(64), 52, 1023)}
# log 2 as two floats, the first so short that its product with a whole number of an exponent's size is exact
LOG_2 = {
    types.float32: (0.693359375, -2.1219444005469057e-4),
    types.float64: (0.6931471803691238, 1.9082149292705877e-10),
}
# exp(r) = 1 + r + r²·p(r) for |r| ≤ log(2) / 2, coefficients of p from the highest; errors 3e-9 and 5e-17
POWERS = {
    types.float32: (1.395049089106e-3, 8.368889387508e-3, 4.1666205805682e-2, 1.66665188393038e-1, 5.00000009518444e-1),
    types.float64: (
        2.5079942147855085e-08, 2.765760313348973e-07, 2.755735194854469e-06, 2.480141508444286e-05,
        1.98412697618561e-04, 1.388888902088672e-03, 8.333333333376788e-03, 4.166666666621701e-02,
        1.666666666666655e-01, 5.000000000000058e-01,
    ),
}  # fmt: skip
LOWEST = {types.float32: -104.0, types.float64: -746.0}  # below it, exp is 0
HIGHEST = {types.float32: 89.0, types.float64: 710.0}  # above it, infinity
# Q(a) = exp(−a²/2)·p(t), t = 1 / (1 + SLOPE·a), a ≥ 0, coefficients of p from the highest; relative error 1.2e-8
SLOPE = 0.33
TAIL = (
    -0.025829535436923144, 0.14838470711834434, -0.3219504682479159, 0.29124938579057275, -0.10657953690537969,
    0.14583917962746448, 0.10372134536193127, 0.1336799996170602, 0.13147858956087827, 6.339618145094933e-06,
)  # fmt: skip
# What a lane of `logistic` and of `tail` executes, beside exponential functions and quotients.
LOGISTIC = ADD * 3
TAIL_OPS = MUL * 2 + ADD + MAC * (len(TAIL) - 1)


@intrinsic
def power_of_e(typingctx, vector):
    """exp(v), lane by lane: 2^k·exp(r), k the whole number nearest to v / log 2. Overflow gives infinity."""
    if not isinstance(vector, Vector):
        return None

    def generate(context, builder, sig, args):
        kind = vector.dtype
        whole, fraction, offset = BITS[kind]
        # No reassociation, for the order below is what makes it exact. Numba gives its own flags to what has none.
        wide, flags = args[0].type, ("contract",)
        many = ir.VectorType(whole, LANES)

        def every(value):
            return ir.Constant(wide, [value] * LANES)

        def integer(value):
            return ir.Constant(many, [value] * LANES)

        def fused(a, b, c):
            return builder.fadd(builder.fmul(a, b, flags=flags), c, flags=flags)

        v = args[0]
        v = builder.select(builder.fcmp_ordered("<", v, every(LOWEST[kind])), every(LOWEST[kind]), v)
        v = builder.select(builder.fcmp_ordered(">", v, every(HIGHEST[kind])), every(HIGHEST[kind]), v)
        magic = 1.5 * 2**fraction  # so large that what is added to it is rounded to a whole number, in its last bits
        shifted = fused(v, every(LOG2_E), every(magic))
        k = builder.fsub(shifted, every(magic), flags=flags)
        high, low = LOG_2[kind]
        r = fused(k, every(-low), fused(k, every(-high), v))
        power = every(POWERS[kind][0])
        for coefficient in POWERS[kind][1:]:
            power = fused(power, r, every(coefficient))
        power = fused(builder.fmul(power, r, flags=flags), r, r)
        power = builder.fadd(power, every(1.0), flags=flags)
        bits = builder.sub(builder.bitcast(shifted, many), builder.bitcast(every(magic), many))
        first = builder.ashr(bits, integer(1))  # 2^k in two factors: one alone would not reach the smallest floats
        for part in (first, builder.sub(bits, first)):
            factor = builder.shl(builder.add(part, integer(offset)), integer(fraction))
            power = builder.fmul(power, builder.bitcast(factor, wide), flags=flags)
        return power

    return signature(vector, vector), generate


@inline
def magnitude(v, zero):
    """|v|; zero: a vector of zeros."""
    return chosen(v, v, zero - v)


@inline
def logistic(v, zero, one):
    """1 / (1 + exp(−v)). No power of e above 1 is taken, so none overflows. zero, one: vectors of them."""
    e = power_of_e(zero - magnitude(v, zero))
    return chosen(v, one, e) / (one + e)


@inline
def tail(like, a, e):
    """(1 − Φ(a)), a ≥ 0, with Φ the distribution function of a standard normal, given e = exp(−a²/2), in float32.

    like: an address of float32.
    """
    one = splat(like, 1.0)
    t = one / (one + splat(like, SLOPE) * a)
    p = splat(like, TAIL[0])
    for coefficient in TAIL[1:]:
        p = p * t + splat(like, coefficient)
    return p * e
