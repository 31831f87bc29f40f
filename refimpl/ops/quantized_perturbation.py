"""Perturbed weights and their update in whole numbers (arXiv 2411.04036): QZO-FF, without a backward pass.

    in_steps  out = round(length/Δw)                                      ε_q of ε; r_q of 2^31·η·Δz/m
    perturb   moved = saturated(requantized(w·1_q + ε_q·Σ_j s_j·z_j))     eq. (6), requantized by Δz ≈ M/2^k
    step      w ← saturated(w − round(r_q·Σ_j s_j·z_j/2^31))              eqs. (7), (8)

z_j are whole numbers of 8 bits in steps of Δz = z_max/127, 1_q = round(1/Δz) stands for 1, and ε_q = round(ε/Δw). The
signs s_j are −1, 0 or 1: of a look's perturbation, and in the update of what its two losses differ by (0 where they do
not). m is their number. A parameter has one scale Δw, or one for each output channel, and as many ε_q and r_q.

Our readings: z_j is drawn again wherever it is needed, from (seed, stream, number of the draw, index), and never
stored: `kernels.random.bell`, the sum of eight random bytes in place of a normal variable, times a whole number and
shifted, cut off at ±127; with `binomial` it is ±1_q, the binomial perturbation. All is rounded to the nearest, a half
upwards, and saturated where the dtype of w ends. Biases are of 32 bits: their product with 1_q takes more, so it is one
of 64 bits, multiplied in two parts (`wide`). 1/m is part of the factor; with `mean8` the mean of the draws is rounded
to 8 bits first. w itself is not written by `perturb`: the kernels of a forward pass read `moved` in its place.

The host writes draws, signs, ε and 2^31·η·Δz/m, for η follows a schedule. What a channel makes of these is found where
it is needed, by one quotient of floats a channel: kept for all of a net it may take half the memory of inference. Both
end at what moves a weight from end to end (`far`, `FAST`): channels that are nearly 0 have very fine steps.
Dimensions: E elements of a parameter of any shape, J draws, M scales; an element has the scale number (e//each) mod M.
"""

import math

import numpy as np

from ..kernels.kernel import helper
from ..kernels.passes import declare
from ..kernels.random import BELL_VARIANCE, bell, words
from ..kernels.requantize import HIGH, clipped, fixed, saturated, single, single_wide

WEIGHTS = "int8|int16|int32: E*"
SHAPES = {
    "w": WEIGHTS, "moved": WEIGHTS, "seed": "int64: 1", "draws": "int64: J", "signs": "int32: J",
    "epsilon": "int64: M", "rate": "int64: M", "out": "int64: M", "length": "float64: 1", "scale": "M",
}  # fmt: skip
FRACTION = 31  # bits of r_q behind its point
FAST = 1 << 46  # the largest r_q: 2^15 steps for each unit of z, and no product with 1,000 draws leaves its type
Z_MAX = 3.5  # of z; that of 127/36 makes 1_q·Δz exactly 1
LARGEST = 127  # of z in whole numbers
MEDIAN = 0.6744897501960817  # of |z|, z normal


def variable_settings(z_max: float = Z_MAX) -> dict[str, int]:
    """The attributes that follow from z_max, Δz = z_max/127; ValueError where 1/Δz rounds to less than 1 or over 127.

    one: 1_q; z_multiplier, z_shift: from the sum of bytes to z; unit_multiplier, unit_shift: Δz.
    """
    step = z_max / LARGEST
    one = math.floor(1 / step + 0.5) if step > 0 else 0
    if not 1 <= one <= LARGEST:
        raise ValueError(f"z_max must be from 1 to 127, so that 1 stands for a number of 1 to 127, got {z_max}")
    z_multiplier, z_shift = fixed(1 / (step * math.sqrt(BELL_VARIANCE)))
    unit_multiplier, unit_shift = fixed(step)
    return {
        "one": one, "z_multiplier": z_multiplier, "z_shift": z_shift, "unit_multiplier": unit_multiplier,
        "unit_shift": unit_shift,
    }  # fmt: skip


def dtype_settings(dtype: np.dtype) -> dict[str, int | bool]:
    """The attributes that follow from the dtype of w: its ends, and whether a product takes 64 bits."""
    ends = np.iinfo(dtype)
    return {"low": int(ends.min), "high": int(ends.max), "wide": ends.bits > 16}


def far(dtype: np.dtype) -> int:
    """The largest ε_q of weights of a dtype: for every z but 0 beyond their ends, and no product leaves its type."""
    return int(HIGH) if np.iinfo(dtype).bits > 16 else 1 << 22


def rate_length(rate: float, draws: int, z_max: float = Z_MAX, mean8: bool = False) -> float:
    """2^31·η·Δz/m, of 2^31·η·Δz with `mean8`: what `in_steps` makes r_q of. rate: η; draws: m.

    arXiv 2411.04036 eq. (8).
    """
    return 2.0**FRACTION * (rate * (z_max / LARGEST) / (1 if mean8 else draws))


def steps_of(length: float, scale: np.ndarray, most: int) -> np.ndarray:
    """What `in_steps` writes, int64, of a length and scales of any float dtype."""
    return np.floor(np.minimum(length / scale.astype(np.float64) + 0.5, most)).astype(np.int64)


def least_rate(scale: float, draws: int = 1, signs: bool = False) -> float:
    """The learning rate η below which more than half of the updates of a parameter with the scale Δw round to 0.

    Ours: the mean of m normal z has the median magnitude 0.674/√m, and moves a weight where η·|z| is Δw/2 at least.
    signs: z is ±1, whose mean is taken to have the magnitude 1/√m.
    """
    return scale * math.sqrt(draws) / (2 * (1 if signs else MEDIAN))


DEFAULT = variable_settings()
ONE, Z_MULTIPLIER, Z_SHIFT, UNIT_MULTIPLIER, UNIT_SHIFT = DEFAULT.values()


@helper
def variable(t, seed, draw, stream, binomial, one, z_multiplier, z_shift):
    """z of an element, a whole number."""
    first, second = words(seed[0], stream, draw, t)
    if binomial:
        return ((first & 1) * 2 - 1) * one
    return clipped(single(bell(first, second), z_multiplier, z_shift), -LARGEST, LARGEST)


@declare(SHAPES, items="M", writes="out")
def in_steps(t, out, scale, length, most=FAST):
    """How many steps of each scale, (M,), make a length, (1,): out, (M,), to the nearest, at most `most`.

    arXiv 2411.04036 eq. (6): ε_q = round(ε/Δw); eq. (8): round(η·Δz/Δw), in parts of 2^31.
    """
    found, end = length[0] / scale[t] + 0.5, scale.dtype.type(most)
    out[t] = np.int64(math.floor(found if found < end else end))


@declare(SHAPES, items="E", writes="moved", like={"moved": "w"})
def perturb(
    t, moved, w, seed, draws, signs, epsilon, stream=0, binomial=False, one=ONE, z_multiplier=Z_MULTIPLIER,
    z_shift=Z_SHIFT, unit_multiplier=UNIT_MULTIPLIER, unit_shift=UNIT_SHIFT, low=-128, high=127, wide=False, each=1,
):  # fmt: skip
    """Perturbed weights moved, (E,), of w, (E,), seed, (1,), draws and signs, (J,), and epsilon, (M,).

    arXiv 2411.04036 eq. (6): Δw·Δz·(w_q·1_q ± ε_q·z_q), requantized by the scale Δw that w has.
    """
    total = np.int64(0)
    for j in range(draws.shape[0]):
        total += signs[j] * variable(t, seed, draws[j], stream, binomial, one, z_multiplier, z_shift)
    total = np.int64(w[t]) * one + epsilon[t // each % epsilon.shape[0]] * total
    if wide:
        total = single_wide(total, unit_multiplier, unit_shift)
    else:
        total = single(total, unit_multiplier, unit_shift)
    moved[t] = saturated(total, low, high, moved)


@declare(SHAPES, items="E", writes="w", inplace="w")
def step(
    t, w, seed, draws, signs, rate, stream=0, binomial=False, one=ONE, z_multiplier=Z_MULTIPLIER, z_shift=Z_SHIFT,
    low=-128, high=127, mean8=False, each=1,
):  # fmt: skip
    """New w, (E,), from the old one, seed, (1,), draws and signs, (J,), and rate, (M,).

    arXiv 2411.04036 eqs. (7), (8): w_q ← w_q − round((η·Δz/Δw)·g_q), g_q = 1/m·Σ_i sign(·)·z_q.
    """
    total = np.int64(0)
    for j in range(draws.shape[0]):
        total += signs[j] * variable(t, seed, draws[j], stream, binomial, one, z_multiplier, z_shift)
    if mean8:
        count = draws.shape[0]
        total = clipped((2 * total + count) // (2 * count), -LARGEST, LARGEST)
    moved = np.int64(w[t]) - single(total, rate[t // each % rate.shape[0]], 31 - FRACTION)
    w[t] = saturated(moved, low, high, w)
