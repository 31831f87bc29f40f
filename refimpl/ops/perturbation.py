"""Perturbed weights, and a gradient put together from perturbations; nothing of the size of the weights is stored.

    moved = w + Σ_j c_j·z_j            what a forward pass reads in place of w, which itself is never written
    estimated = Σ_j c_j·z_j            what an optimizer reads as a gradient

z_j is drawn again wherever it is needed, from (seed, stream, number of the draw, index): our reading of z ~ N(0, I) of
arXiv 2411.04036 is `kernels.random.bell` divided by the root of its variance, mean 0 and variance 1, which differs from
the normal distribution by 0.0036 at most and ends at ±4.88; with `signs` it is +1 or −1 ("binomial"). Where a `guide`
and its `share` are given,

    z_j = share·deviation·n_j + (1 − share)·(guide + spread·n'_j),   n_j and n'_j two such variables

Where `scales` are given, the first M of the c_j are multiplied by them. Only some weights take part where a threshold
`least` is given (|w| ≥ least) or `step` (a share of them, drawn anew in each step), and z is 0 elsewhere: no mask is
stored.
Dimensions: E elements of a parameter of any shape, J draws, M of them scaled, L = ⌈E / SLICE⌉ slices. Any float dtype.
`coefficients` are the c_j, `draws` the numbers of the draws; the host writes both. A parameter has three streams from
`stream` on: n, n', and which weights take part.
"""

import math

from ..kernels.geometry import SLICE, slice_derive, slice_lengths
from ..kernels.kernel import helper
from ..kernels.passes import declare
from ..kernels.random import BELL_VARIANCE, bell, words

SHAPES = {
    "w": "E*", "moved": "E*", "estimated": "E*", "guide": "E*", "seed": "int64: 1", "draws": "int64: J",
    "coefficients": "J", "scales": "M", "share": "1", "least": "1", "step": "int64: 1", "w_squares": "float64: L",
    "z_squares": "float64: M L",
}  # fmt: skip
UNIT = 1 / math.sqrt(BELL_VARIANCE)
HALVINGS = 40  # of the interval in which the k-th largest magnitude lies
FLOOR = 1e-3  # that ‖w‖/‖z‖ is taken for at least: weights of zero could never leave it


def derive(sizes, attrs):
    """M is 0 where nothing is scaled."""
    return {"M": sizes.get("M", 0)}


def drawn(pick, large):
    """Letters of a call for tests: no more scaled draws than draws."""
    scaled = pick(1, 4)
    elements = pick(1, 3 * SLICE if large else 40)
    return {"E": elements, "J": scaled + pick(0, 3), "M": scaled, "L": -(-elements // SLICE)}, {}


@helper
def variable(t, like, seed, stream, draw, signs):
    """One number of mean 0 and variance 1 in the dtype of `like`."""
    first, second = words(seed[0], stream, draw, t)
    if signs:
        return like.dtype.type((first & 1) * 2 - 1)
    return like.dtype.type(bell(first, second)) * like.dtype.type(UNIT)


@helper
def direction(t, like, seed, draw, guide, share, stream, signs, deviation, spread):
    """z of an element, from a draw."""
    z = variable(t, like, seed, stream, draw, signs)
    if share.shape[0] and guide.shape[0]:
        other = guide[t] + spread * variable(t, like, seed, stream + 1, draw, signs)
        z = share[0] * (deviation * z) + (like.dtype.type(1) - share[0]) * other
    return z


@helper
def takes_part(t, w, seed, least, step, stream, chosen):
    """Is a weight perturbed?"""
    if least.shape[0]:
        return abs(w[t]) >= least[0]
    if step.shape[0]:
        draw, _ = words(seed[0], stream + 2, step[0], t)
        return w.dtype.type(draw >> 8) < chosen * w.dtype.type(16777216)
    return True


@helper
def sum_of_draws(
    t, w, seed, draws, coefficients, scales, guide, share, least, step, stream, signs, deviation, spread, chosen
):  # fmt: skip
    """Σ_j c_j·z_j of an element."""
    total = w.dtype.type(0)
    for j in range(draws.shape[0]):
        c = coefficients[j]
        if j < scales.shape[0]:
            c = c * scales[j]
        total += c * direction(t, w, seed, draws[j], guide, share, stream, signs, deviation, spread)
    return total if takes_part(t, w, seed, least, step, stream, chosen) else w.dtype.type(0)


@declare(SHAPES, items="E", writes="moved", derive=derive)
def perturb(
    t, moved, w, seed, draws, coefficients, scales=None, guide=None, share=None, least=None, step=None,
    stream=0, signs=False, deviation=1.0, spread=1.0, chosen=1.0,
):  # fmt: skip
    """Perturbed weights moved, (E,), of w, (E,), draws and coefficients, (J,); see the module for the rest."""
    moved[t] = w[t] + sum_of_draws(
        t, w, seed, draws, coefficients, scales, guide, share, least, step, stream, signs, deviation, spread, chosen
    )


@declare(SHAPES, items="E", writes="estimated", derive=derive)
def estimate(
    t, estimated, w, seed, draws, coefficients, scales=None, guide=None, share=None, least=None, step=None,
    stream=0, signs=False, deviation=1.0, spread=1.0, chosen=1.0,
):  # fmt: skip
    """Estimated gradient, (E,), of w, (E,), draws and coefficients, (J,); see the module for the rest."""
    estimated[t] = sum_of_draws(
        t, w, seed, draws, coefficients, scales, guide, share, least, step, stream, signs, deviation, spread, chosen
    )


@declare(SHAPES, items="E", writes="guide", inplace="guide")
def follow(t, guide, seed, draws, share, stream=0, signs=False, deviation=1.0, spread=1.0):
    """New guide, (E,): the z of the last of draws, (J,), around the old one."""
    last = draws[draws.shape[0] - 1]
    guide[t] = direction(t, guide, seed, last, guide, share, stream, signs, deviation, spread)


@declare(SHAPES, items="1", writes="least", sums="E")
def magnitude(t, least, w, keep=1):
    """Threshold least, (1,), that `keep` weights of w, (E,), reach: the magnitude of the keep-th largest.

    To within 2^−HALVINGS of the largest: of weights that lie closer to the keep-th than that, all reach it.
    """
    low = w.dtype.type(0)
    high = w.dtype.type(0)
    for e in range(w.shape[0]):
        value = abs(w[e])
        high = value if value > high else high
    for _ in range(HALVINGS):
        middle = low + (high - low) * w.dtype.type(0.5)
        reached = 0
        for e in range(w.shape[0]):  # every element is looked at: the work does not depend on the data
            reached += 1 if abs(w[e]) >= middle else 0
        low = middle if reached >= keep else low
        high = high if reached >= keep else middle
    least[0] = low


@declare(SHAPES, items="M L", writes="z_squares", derive=slice_derive, alike={"L": slice_lengths})
def squares(
    t, z_squares, w, seed, draws, guide=None, share=None, least=None, step=None,
    stream=0, signs=False, deviation=1.0, spread=1.0, chosen=1.0,
):  # fmt: skip
    """Sum of z² over each slice of w, (E,), for the first M of draws, (J,): z_squares, (M, L)."""
    j, part = divmod(t, z_squares.shape[1])
    end = (part + 1) * SLICE if (part + 1) * SLICE < w.shape[0] else w.shape[0]
    total = z_squares.dtype.type(0)
    for e in range(part * SLICE, end):
        z = direction(e, w, seed, draws[j], guide, share, stream, signs, deviation, spread)
        value = z_squares.dtype.type(z if takes_part(e, w, seed, least, step, stream, chosen) else w.dtype.type(0))
        total += value * value
    z_squares[j, part] = total


@declare(SHAPES, items="M", writes="scales", sums="L")
def norm_ratio(t, scales, w_squares, z_squares):
    """Kernel-wise normalization scales, (M,): ‖w‖/‖z‖, from w_squares, (L,), and z_squares, (M, L); FLOOR at least.

    arXiv 2411.04036 eq. (9).
    """
    of_w = w_squares.dtype.type(0)
    of_z = z_squares.dtype.type(0)
    for part in range(w_squares.shape[0]):
        of_w += w_squares[part]
        of_z += z_squares[t, part]
    ratio = scales.dtype.type(math.sqrt(of_w) / math.sqrt(of_z)) if of_z > 0 else scales.dtype.type(FLOOR)
    least = scales.dtype.type(FLOOR)
    scales[t] = ratio if ratio > least else least
