"""Gradient of the softmax cross-entropy of whole logits x·2^e in whole numbers, and the loss as it is reported.

    d = max_k x[n,k] − x[n,k],   t = ⌊d·L·2^e / 2^7⌋,  L = 47274 ≈ log₂e·2^15      exp(−d·2^e) = 2^(−t/2^8)
    o[n,k] = ⌊(2^9 − f)·2^7 / 2^i⌋,  t = 2^8·i + f,  0 ≤ f < 2^8                    2^(−f) ≈ 1 − f/2: at most 6 % more
    errors[n,k] = ⌊2^14·o[n,k] / Σ_k o[n,k]⌋ − 2^14·[k = label]
    dx·2^dx_e ≈ errors·2^(−14), narrowed by `shared_exponent`
    loss = mean of log Σ_k exp((x[n,k] − max x)·2^e) − (x[n,label] − max x)·2^e    in floats, for the report alone

Wang et al. 2020 (NITI, arXiv 2009.13108). [second-hand] that an integer approximation of the softmax cross-entropy
makes the error of the last layer; from its author's public code: powers of two, with log₂e in 15 bits. (That code takes
2^s − 1 of whole s from ten below the largest, another form for small exponents, and probabilities of 11 bits.) [ours]
one form for all exponents, whose fraction is interpolated in a straight line, probabilities of 14 bits, and errors that
share an exponent as all others do. The division by the samples of a
mini-batch is left out: an update does not depend on it. Nothing of a step reads the loss.
Dimensions: N samples, K classes. Labels int64, 0 … K−1.
"""

import math

import numpy as np

from ..kernels.kernel import helper
from ..kernels.passes import Bound, declare
from ..kernels.random import ROUNDING
from ..kernels.requantize import clipped
from .shared_exponent import most, narrow, settle
from .softmax_cross_entropy import measures as measures

SHAPES = {
    "x": "int8: N K", "x_exponent": "int32: 1", "labels": "int64: N", "top": "int32: N", "total": "int64: N",
    "errors": "int32: N K", "errors_most": "int32: N", "dx_shift": "int32: 1", "dx": "int8: N K",
    "dx_exponent": "int32: 1", "losses": "N", "loss": "1", "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip
HOST = {"step": "update", "seed": "seed"}
STREAM = ROUNDING
LOG2_E = 47274  # log₂e in 15 bits behind the point
POINT = 14  # bits of a probability


@helper
def power(below, exponent):
    """About 2^16·exp(−below·2^exponent), an int64; below: from 0 to 254."""
    left = clipped(exponent - 7, 0, 24)
    right = clipped(7 - exponent, 0, 40)
    t = ((np.int64(below) * LOG2_E) << left) >> right
    return ((512 - (t & 255)) << 7) >> clipped(t >> 8, 0, 31)


@declare(SHAPES, items="N", writes="top total", sums="K")
def totals(t, top, total, x, x_exponent):
    """The largest logit, (N,), and the sum of the powers of each row of x, (N, K), of x_exponent, (1,)."""
    found = np.int32(x[t, 0])
    for k in range(x.shape[1]):
        value = np.int32(x[t, k])
        found = value if value > found else found
    summed = np.int64(0)
    for k in range(x.shape[1]):
        summed = summed + power(found - np.int32(x[t, k]), x_exponent[0])
    top[t] = found
    total[t] = summed


@declare(SHAPES, items="N K", writes="errors", indices={"labels": "K"})
def wide_errors(t, errors, x, x_exponent, labels, top, total):
    """Errors, (N, K), from x, (N, K), x_exponent, (1,), labels, top and total, (N,).

    arXiv 2009.13108, integer cross-entropy.
    """
    n, k = divmod(t, errors.shape[1])
    share = (power(top[n] - np.int32(x[n, k]), x_exponent[0]) << POINT) // total[n]
    errors[n, k] = np.int32(share - (1 << POINT if labels[n] == k else 0))


@declare(SHAPES, items="N", writes="losses", sums="K", indices={"labels": "K"})
def sample_losses(t, losses, x, x_exponent, labels):
    """The loss of each sample, (N,), of x, (N, K), x_exponent, (1,), and labels, (N,), in floats."""
    up = losses.dtype.type(np.int64(1) << clipped(x_exponent[0], 0, 62))
    unit = up / losses.dtype.type(np.int64(1) << clipped(0 - x_exponent[0], 0, 62))
    found = np.int32(x[t, 0])
    for k in range(x.shape[1]):
        value = np.int32(x[t, k])
        found = value if value > found else found
    summed = losses.dtype.type(0)
    for k in range(x.shape[1]):
        summed += math.exp(losses.dtype.type(np.int32(x[t, k]) - found) * unit)
    losses[t] = math.log(summed) - losses.dtype.type(np.int32(x[t, labels[t]]) - found) * unit


@declare(SHAPES, items="1", writes="loss", sums="N")
def mean_loss(t, loss, losses):
    """Mean loss, (1,), of losses, (N,)."""
    total = loss.dtype.type(0)
    for n in range(losses.shape[0]):
        total += losses[n]
    loss[0] = total / loss.dtype.type(losses.shape[0])


BOUND = (
    Bound(most, {"v": "errors", "most": "errors_most"}),
    Bound(
        settle,
        {"most": "errors_most", "shift": "dx_shift", "exponent": "dx_exponent", "first": "", "second": ""},
        attrs={"point": POINT},
    ),
    Bound(narrow, {"v": "errors", "q": "dx", "shift": "dx_shift"}),
)
