"""Layer normalisation of each row: y = γ·x̂ + β, x̂ = (x − mean)·inv_std, over its C elements (arXiv 1607.06450).

    mean = Σ_c x / C,  inv_std = 1 / √(Σ_c (x − mean)² / C + ε)
    dγ = Σ_n dy·x̂,  dβ = Σ_n dy,  dx = inv_std·(γ·dy − (sum + x̂·along) / C),  sum = Σ_c γ·dy,  along = Σ_c γ·dy·x̂

Along a direction, with Sx = Σ_c tx and Sx̂ = Σ_c tx·x̂:

    ty = γ·inv_std·(tx − (Sx + x̂·Sx̂) / C) + tγ·x̂ + tβ

Nothing of it depends on other samples, so it is the same in training and inference.
Dimensions: N rows (all axes before the last), C elements of a row. Any float dtype.
"""

import math

from ..kernels.passes import declare

SHAPES = {
    "x": "N* C", "gamma": "C", "beta": "C", "mean": "N*", "inv_std": "N*", "y": "N* C",
    "dy": "N* C", "dx": "N* C", "sum": "N*", "along": "N*", "dgamma": "C", "dbeta": "C",
    "tx": "N* C", "ty": "N* C", "tgamma": "C", "tbeta": "C", "tsum": "N*", "talong": "N*",
}  # fmt: skip
PARAMS = ("gamma", "beta")
TRAINS = "behind"
BIAS = "beta"
SCALES = ("gamma", "beta")


@declare(SHAPES, items="N", writes="mean inv_std")
def statistics(t, mean, inv_std, x, eps=1e-5):
    """Mean and inverse standard deviation of each row, (N,), of x, (N, C)."""
    float_ = x.dtype.type
    total, squares = float_(0), float_(0)
    for c in range(x.shape[1]):
        total += x[t, c]
    middle = total / float_(x.shape[1])
    for c in range(x.shape[1]):
        centred = x[t, c] - middle
        squares += centred * centred
    mean[t] = middle
    inv_std[t] = float_(1) / math.sqrt(squares / float_(x.shape[1]) + float_(eps))


@declare(SHAPES, items="N C", writes="y")
def forward(t, y, x, gamma, beta, mean, inv_std):
    """Output y = γ·x̂ + β, (N, C), from x, (N, C), gamma and beta, (C,), mean and inv_std, (N,)."""
    n, c = divmod(t, y.shape[1])
    y[n, c] = (x[n, c] - mean[n]) * inv_std[n] * gamma[c] + beta[c]


@declare(SHAPES, items="N", writes="sum along")
def projections(t, sum, along, dy, x, gamma, mean, inv_std):
    """sum = Σ_c γ·dy and along = Σ_c γ·dy·x̂ of each row, (N,), from dy and x, (N, C)."""
    float_ = x.dtype.type
    middle, total, product = mean[t], float_(0), float_(0)
    for c in range(x.shape[1]):
        weighed = gamma[c] * dy[t, c]
        total += weighed
        product += weighed * (x[t, c] - middle)
    sum[t] = total
    along[t] = product * inv_std[t]


@declare(SHAPES, items="N C", writes="dx")
def grad_x(t, dx, dy, x, gamma, mean, inv_std, sum, along):
    """Gradient of x, (N, C): inv_std·(γ·dy − (sum + x̂·along) / C), from dy and x, (N, C)."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std, where mean and inv_std depend on all of the row
    n, c = divmod(t, dx.shape[1])
    normal = (x[n, c] - mean[n]) * inv_std[n]
    dx[n, c] = inv_std[n] * (gamma[c] * dy[n, c] - (sum[n] + normal * along[n]) / dx.dtype.type(dx.shape[1]))


@declare(SHAPES, items="C", writes="dgamma", sums="N", adds="N")
def grad_gamma(t, dgamma, dy, x, mean, inv_std):
    """Gradient of gamma, (C,): Σ_n dy·x̂, from dy and x, (N, C), mean and inv_std, (N,)."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std
    total = dgamma.dtype.type(0)
    for n in range(x.shape[0]):
        total += dy[n, t] * ((x[n, t] - mean[n]) * inv_std[n])
    dgamma[t] = total


@declare(SHAPES, items="C", writes="dbeta", sums="N", adds="N")
def grad_beta(t, dbeta, dy):
    """Gradient of beta, (C,): Σ_n dy, from dy, (N, C)."""
    # forward: y = γ·x̂ + β
    total = dbeta.dtype.type(0)
    for n in range(dy.shape[0]):
        total += dy[n, t]
    dbeta[t] = total


@declare(SHAPES, items="N", writes="tsum talong")
def tangent_projections(t, tsum, talong, tx, x, mean, inv_std):
    """tsum = Σ_c tx and talong = Σ_c tx·x̂ of each row, (N,), from tx and x, (N, C)."""
    float_ = x.dtype.type
    middle, total, product = mean[t], float_(0), float_(0)
    for c in range(x.shape[1]):
        total += tx[t, c]
        product += tx[t, c] * (x[t, c] - middle)
    tsum[t] = total
    talong[t] = product * inv_std[t]


@declare(SHAPES, items="N C", writes="ty")
def tangent_normal(t, ty, tx, x, gamma, mean, inv_std, tsum, talong):
    """Tangent ty = γ·inv_std·(tx − (tsum + x̂·talong) / C), (N, C), from tx and x, (N, C)."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std, where mean and inv_std depend on all of the row
    n, c = divmod(t, ty.shape[1])
    normal = (x[n, c] - mean[n]) * inv_std[n]
    ty[n, c] = gamma[c] * inv_std[n] * (tx[n, c] - (tsum[n] + normal * talong[n]) / ty.dtype.type(ty.shape[1]))


@declare(SHAPES, items="N C", writes="ty")
def tangent_affine(t, ty, x, mean, inv_std, tgamma=None, tbeta=None):
    """Tangent ty = tγ·x̂ + tβ, (N, C), from x, (N, C), mean and inv_std, (N,); tgamma or tbeta not given is 0."""
    # forward: y = γ·x̂ + β
    n, c = divmod(t, ty.shape[1])
    total = tbeta[c] if tbeta.shape[0] else ty.dtype.type(0)
    if tgamma.shape[0]:
        total += (x[n, c] - mean[n]) * inv_std[n] * tgamma[c]
    ty[n, c] = total


TANGENT = (tangent_projections, tangent_normal, tangent_affine)  # the first is for the second


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.layer_norm(name, x, (1e-5, 1e-3)[pick(0, 1)])
