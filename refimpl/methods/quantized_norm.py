"""arXiv 1805.11046, range batch norm, for `quantized`: the range of the batch in place of its deviation.

Of M = N·H·W values x a channel, in place of the variance of `batch_norm`:

    σ = (max x − min x) / (2·√(2·ln M))                          var = σ²          ends
    dx = γ·inv_std·(dy − dβ/M) − e·γ·dγ·inv_std²·σ / (2·√(2·ln M)),                  slope, grad_x
         e = 1 at the maximum, −1 at the minimum, 0 elsewhere

What M values of a normal variable span is about 2·√(2·ln M) of its deviations. Mean, output, dγ, dβ and the running
statistics are the passes of `batch_norm` on this variance.

Readings:
  [ours]  inv_std = 1 / √(σ² + ε), as in `batch_norm`, so that frozen statistics mean the same; the paper's equations
          were not at hand.
  [ours]  The running variance follows σ² as it is, without M / (M − 1), which belongs to a sum of squares.
  [ours]  Of several equal ends the first one in memory moves σ.
Dimensions: N samples, H W rows and columns, C channels. Any float dtype.
"""

import math

from ..kernels.kernel import helper
from ..kernels.passes import ShapeError, declare

SHAPES = {
    "x": "N H W C", "gamma": "C", "mean": "C", "var": "C", "unbiased_var": "C", "inv_std": "C", "low": "int32: C",
    "high": "int32: C", "slope": "C", "dy": "N H W C", "dx": "N H W C", "dgamma": "C", "dbeta": "C",
}  # fmt: skip


def several(sizes, attrs):
    """Nothing follows; ShapeError where a channel has a single value, whose range is zero."""
    if {"N", "H", "W"} <= sizes.keys() and sizes["N"] * sizes["H"] * sizes["W"] == 1:
        raise ShapeError(
            "expected more than 1 value per channel when training, but x has N·H·W = 1: use a larger batch"
        )
    return {}


def drawn(pick, large):
    """Sizes with more than one value a channel."""
    most = 32 if large else 3
    size = {"H": pick(1, most), "W": pick(1, most), "C": pick(1, 8 * most)}
    return {"N": pick(1 if size["H"] * size["W"] > 1 else 2, most), **size}, {}


@helper
def span(values, two):
    """How many deviations that many values of a normal variable span, 2·√(2·ln M), of floats of one width."""
    return two * math.sqrt(two * math.log(values))


@declare(SHAPES, items="C", writes="var unbiased_var low high", derive=several, sums="N H W")
def ends(t, var, unbiased_var, low, high, x):
    """Variance of each channel by its range, var and unbiased_var, (C,), of x, (N, H, W, C): range batch norm.

    low, high: the places, (C,), of its minimum and maximum among the N·H·W values.
    """
    least = most = x[0, 0, 0, t]
    first = last = 0
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for col in range(x.shape[2]):
                value = x[n, h, col, t]
                place = (n * x.shape[1] + h) * x.shape[2] + col
                if value < least:
                    least, first = value, place
                if value > most:
                    most, last = value, place
    values = var.dtype.type(x.shape[0] * x.shape[1] * x.shape[2])
    deviation = (most - least) / span(values, var.dtype.type(2))
    square = deviation * deviation
    var[t] = square
    unbiased_var[t] = square
    low[t] = first
    high[t] = last


@declare(SHAPES, items="C", writes="slope", derive=several)
def slope(t, slope, x, gamma, var, inv_std, dgamma):
    """What the maximum of each channel takes of the gradient of its deviation, (C,), and its minimum gives.

    From gamma, var, inv_std and dgamma, (C,); x, (N, H, W, C), tells M.
    """
    values = slope.dtype.type(x.shape[0] * x.shape[1] * x.shape[2])
    moved = gamma[t] * dgamma[t] * inv_std[t] * inv_std[t] * math.sqrt(var[t])
    slope[t] = moved / span(values, slope.dtype.type(2))


@declare(SHAPES, items="N H W C", writes="dx")
def grad_x(t, dx, dy, gamma, inv_std, dbeta, slope, low, high):
    """Gradient of x, (N, H, W, C), from dy, (N, H, W, C), and gamma, inv_std, dbeta, slope, low and high, (C,)."""
    # forward: y = γ·(x − mean)·inv_std + β, where mean depends on all of x and inv_std on its ends
    place, c = divmod(t, dx.shape[3])
    rest, col = divmod(place, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    values = dx.dtype.type(dx.shape[0] * dx.shape[1] * dx.shape[2])
    end = (1 if high[c] == place else 0) - (1 if low[c] == place else 0)
    even = gamma[c] * inv_std[c] * (dy[n, h, col, c] - dbeta[c] / values)
    dx[n, h, col, c] = even - dx.dtype.type(end) * slope[c]
