"""Batch normalisation with the statistics of the batch: y = γ·x̂ + β, x̂ = (x − mean)·inv_std, per channel.

With M = N·H·W values a channel (Ioffe, Szegedy, arXiv 1502.03167, algorithm 1 and section 3):

    mean = Σ x / M,  var = Σ (x − mean)² / M,  inv_std = 1 / √(var + ε)
    dγ = Σ dy·x̂,  dβ = Σ dy,  dx = γ·inv_std·(dy − (dβ + x̂·dγ) / M)
    running_mean ← running_mean + momentum·(mean − running_mean)
    running_var ← running_var + momentum·(unbiased_var − running_var),  unbiased_var = Σ (x − mean)² / (M − 1)

dx is a symmetric linear map of dy, so along a direction x̂ has the same one of tx: with Sx = Σ tx, Sx̂ = Σ tx·x̂,

    ty = γ·inv_std·(tx − (Sx + x̂·Sx̂) / M) + tγ·x̂ + tβ

`momentum` is the share of the new value, as in PyTorch. One value a channel has no variance and is refused.
`frozen_batch_norm` takes its place where the statistics are fixed.
Dimensions: N samples, H W rows and columns, C channels. Any float dtype.
"""

import math

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {
    "x": "N H W C", "gamma": "C", "beta": "C", "running_mean": "C", "running_var": "C",
    "mean": "C", "var": "C", "unbiased_var": "C", "inv_std": "C",
    "y": "N H W C", "dy": "N H W C", "dx": "N H W C", "dgamma": "C", "dbeta": "C",
    "ty": "N H W C", "tgamma": "C", "tbeta": "C",
}  # fmt: skip
PARAMS = ("gamma", "beta")
STATE = ("running_mean", "running_var")
STATISTICS = ("N", "H", "W")
TRAINS = "statistics"
BIAS = "beta"
SCALES = ("gamma", "beta")
CHANNELS = "kept"


def variant(training: bool, statistics: bool) -> str:
    """Without the statistics of the batch it is a scale and a shift that do not change."""
    return "batch_norm" if statistics else "frozen_batch_norm"


def per_channel(sizes):
    """M, the number of values of a channel."""
    return math.prod(sizes[letter] for letter in STATISTICS)


def several(sizes, attrs):
    """Nothing follows; ShapeError where a channel has a single value: its variance is zero and its gradient too."""
    if per_channel(sizes) == 1:
        raise ShapeError(
            "expected more than 1 value per channel when training, but x has N·H·W = 1: use a larger batch or freeze "
            "the batch norm"
        )
    return {}


def drawn(pick, large):
    """Sizes with more than one value a channel."""
    most = 32 if large else 3
    size = {"H": pick(1, most), "W": pick(1, most), "C": pick(1, 8 * most)}
    return {"N": pick(1 if size["H"] * size["W"] > 1 else 2, most), **size}, {}


@declare(SHAPES, items="C", writes="mean", sums="N H W", adds="N H W", divisors={"mean": per_channel})
def mean(t, mean, x):
    """Mean of each channel, (C,), of x, (N, H, W, C)."""
    total = x.dtype.type(0)
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for col in range(x.shape[2]):
                total += x[n, h, col, t]
    mean[t] = total / x.dtype.type(x.shape[0] * x.shape[1] * x.shape[2])


@declare(
    SHAPES, items="C", writes="var unbiased_var", derive=several, sums="N H W", adds="N H W",
    divisors={"var": per_channel, "unbiased_var": lambda sizes: per_channel(sizes) - 1},
)  # fmt: skip
def var(t, var, unbiased_var, x, mean):
    """Variance var, (C,), over M, and unbiased_var, (C,), over M − 1, from x, (N, H, W, C), and mean, (C,)."""
    middle = mean[t]
    total = x.dtype.type(0)
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for col in range(x.shape[2]):
                centred = x[n, h, col, t] - middle
                total += centred * centred
    values = x.shape[0] * x.shape[1] * x.shape[2]
    var[t] = total / x.dtype.type(values)
    unbiased_var[t] = total / x.dtype.type(values - 1)


@declare(SHAPES, items="C", writes="inv_std")
def inv_std(t, inv_std, var, eps=1e-5):
    """Inverse standard deviation inv_std = 1 / √(var + ε), (C,), from var, (C,)."""
    inv_std[t] = inv_std.dtype.type(1) / math.sqrt(var[t] + eps)


@declare(SHAPES, items="N H W C", writes="y")
def forward(t, y, x, gamma, beta, mean, inv_std):
    """Output y = γ·x̂ + β, (N, H, W, C), from x, (N, H, W, C), and gamma, beta, mean and inv_std, (C,)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    y[n, h, col, c] = (x[n, h, col, c] - mean[c]) * inv_std[c] * gamma[c] + beta[c]


@declare(SHAPES, items="C", writes="running_mean", inplace="running_mean")
def update_mean(t, running_mean, mean, momentum=0.1):
    """New running_mean, (C,), from the old one and mean, (C,)."""
    running_mean[t] += momentum * (mean[t] - running_mean[t])


@declare(SHAPES, items="C", writes="running_var", inplace="running_var")
def update_var(t, running_var, unbiased_var, momentum=0.1):
    """New running_var, (C,), from the old one and unbiased_var, (C,)."""
    running_var[t] += momentum * (unbiased_var[t] - running_var[t])


@declare(SHAPES, items="N H W C", writes="dx")
def grad_x(t, dx, dy, x, gamma, mean, inv_std, dgamma, dbeta):
    """Gradient of x, (N, H, W, C): γ·inv_std·(dy − (dβ + x̂·dγ) / M), from dy and x, (N, H, W, C), the rest (C,)."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std, where mean and inv_std depend on all of x
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    values = dx.dtype.type(dx.shape[0] * dx.shape[1] * dx.shape[2])
    normal = (x[n, h, col, c] - mean[c]) * inv_std[c]
    dx[n, h, col, c] = gamma[c] * inv_std[c] * (dy[n, h, col, c] - (dbeta[c] + normal * dgamma[c]) / values)


@declare(SHAPES, items="C", writes="dgamma", sums="N H W", adds="N H W")
def grad_gamma(t, dgamma, dy, x, mean, inv_std):
    """Gradient of gamma, (C,): Σ_{n,h,w} dy·x̂, from dy and x, (N, H, W, C), mean and inv_std, (C,)."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std
    middle = mean[t]
    total = dgamma.dtype.type(0)
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for col in range(x.shape[2]):
                total += dy[n, h, col, t] * (x[n, h, col, t] - middle)
    dgamma[t] = total * inv_std[t]


@declare(SHAPES, items="C", writes="dbeta", sums="N H W", adds="N H W")
def grad_beta(t, dbeta, dy):
    """Gradient of beta, (C,): Σ_{n,h,w} dy, from dy, (N, H, W, C)."""
    # forward: y = γ·x̂ + β
    total = dbeta.dtype.type(0)
    for n in range(dy.shape[0]):
        for h in range(dy.shape[1]):
            for col in range(dy.shape[2]):
                total += dy[n, h, col, t]
    dbeta[t] = total


@declare(SHAPES, items="N H W C", writes="ty")
def tangent_affine(t, ty, x, mean, inv_std, tgamma=None, tbeta=None):
    """Tangent ty = tγ·x̂ + tβ, (N, H, W, C), from x, (N, H, W, C), the rest (C,); tgamma or tbeta not given is 0."""
    # forward: y = γ·x̂ + β
    rest, c = divmod(t, ty.shape[3])
    rest, col = divmod(rest, ty.shape[2])
    n, h = divmod(rest, ty.shape[1])
    total = tbeta[c] if tbeta.shape[0] else ty.dtype.type(0)
    if tgamma.shape[0]:
        total += (x[n, h, col, c] - mean[c]) * inv_std[c] * tgamma[c]
    ty[n, h, col, c] = total


TANGENT = (  # ty = γ·inv_std·(tx − (Sx + x̂·Sx̂) / M) + tγ·x̂ + tβ
    Bound(grad_beta, {"dbeta": "sum_tx", "dy": "tx"}),
    Bound(grad_gamma, {"dgamma": "sum_tx_normal", "dy": "tx"}),
    Bound(grad_x, {"dx": "ty", "dy": "tx", "dgamma": "sum_tx_normal", "dbeta": "sum_tx"}),
    tangent_affine,
)
