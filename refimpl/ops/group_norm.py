"""Normalisation of each sample over rows, columns and the channels of a group: y = γ·x̂ + β, x̂ = (x − mean)·inv_std.

With M = H·W·C/G values a group (Wu, He, arXiv 1803.08494, section 3; one group a channel is instance normalisation):

    mean = Σ x / M,  var = Σ (x − mean)² / M,  inv_std = 1 / √(var + ε)
    dγ = Σ dy·x̂,  dβ = Σ dy over samples, rows and columns
    dx = inv_std·(γ·dy − (S + x̂·Ŝ) / M),  S = Σ γ·dy,  Ŝ = Σ γ·dy·x̂ over the group

dx is such a linear map of γ·dy that along a direction x̂ has the same of tx, so that with S = Σ tx, Ŝ = Σ tx·x̂:

    ty = γ·inv_std·(tx − (S + x̂·Ŝ) / M) + tγ·x̂ + tβ

Nothing depends on the other samples. It trains as a batch norm's γ and β do.
Dimensions: N samples, H W rows and columns, C channels, G groups. Any float dtype.
"""

import math

from ..kernels.passes import ShapeError, declare

SHAPES = {
    "x": "N H W C", "gamma": "C", "beta": "C", "mean": "N G", "inv_std": "N G", "y": "N H W C", "dy": "N H W C",
    "dx": "N H W C", "dgamma": "C", "dbeta": "C", "part": "N G", "part_normal": "N G",
    "tx": "N H W C", "ty": "N H W C", "tgamma": "C", "tbeta": "C", "tpart": "N G", "tpart_normal": "N G",
}  # fmt: skip
PARAMS = ("gamma", "beta")
TRAINS = "statistics"
BIAS = "beta"
SCALES = ("gamma", "beta")


def derive(sizes, attrs):
    """G; ShapeError where the groups do not divide the channels."""
    groups = attrs["groups"]
    if groups < 1 or "C" in sizes and sizes["C"] % groups:
        raise ShapeError(f"C={sizes.get('C')} is not a multiple of {groups} groups")
    return {"G": groups}


def drawn(pick, large):
    """A map with groups that divide its channels."""
    most = 16 if large else 4
    groups = pick(1, most)
    sizes = {"N": pick(1, most), "H": pick(1, most), "W": pick(1, most), "C": groups * pick(1, most), "G": groups}
    return sizes, {"groups": groups}


@declare(SHAPES, items="N G", writes="mean", derive=derive)
def mean(t, mean, x, groups=1):
    """Mean of each group, (N, G), of x, (N, H, W, C)."""
    n, g = divmod(t, mean.shape[1])
    depth = x.shape[3] // groups
    total = x.dtype.type(0)
    for h in range(x.shape[1]):
        for col in range(x.shape[2]):
            for c in range(g * depth, (g + 1) * depth):
                total += x[n, h, col, c]
    mean[n, g] = total / x.dtype.type(x.shape[1] * x.shape[2] * depth)


@declare(SHAPES, items="N G", writes="inv_std", derive=derive)
def inv_std(t, inv_std, x, mean, groups=1, eps=1e-5):
    """Inverse standard deviation of each group, (N, G), from x, (N, H, W, C), and mean, (N, G)."""
    n, g = divmod(t, mean.shape[1])
    depth = x.shape[3] // groups
    middle = mean[n, g]
    total = x.dtype.type(0)
    for h in range(x.shape[1]):
        for col in range(x.shape[2]):
            for c in range(g * depth, (g + 1) * depth):
                centred = x[n, h, col, c] - middle
                total += centred * centred
    var = total / x.dtype.type(x.shape[1] * x.shape[2] * depth)
    inv_std[n, g] = inv_std.dtype.type(1) / math.sqrt(var + eps)


@declare(SHAPES, items="N H W C", writes="y", derive=derive)
def forward(t, y, x, gamma, beta, mean, inv_std, groups=1):
    """Output y = γ·x̂ + β, (N, H, W, C), from x, (N, H, W, C), gamma and beta, (C,), mean and inv_std, (N, G)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    g = c // (y.shape[3] // groups)
    y[n, h, col, c] = (x[n, h, col, c] - mean[n, g]) * inv_std[n, g] * gamma[c] + beta[c]


@declare(SHAPES, items="C", writes="dgamma", derive=derive, sums="N H W", adds="N H W")
def grad_gamma(t, dgamma, dy, x, mean, inv_std, groups=1):
    """Gradient of gamma, (C,): Σ dy·x̂, from dy and x, (N, H, W, C), mean and inv_std, (N, G)."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std
    g = t // (x.shape[3] // groups)
    total = dgamma.dtype.type(0)
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for col in range(x.shape[2]):
                normal = (x[n, h, col, t] - mean[n, g]) * inv_std[n, g]
                total += dy[n, h, col, t] * normal
    dgamma[t] = total


@declare(SHAPES, items="C", writes="dbeta", sums="N H W", adds="N H W")
def grad_beta(t, dbeta, dy):
    """Gradient of beta, (C,): Σ dy, from dy, (N, H, W, C)."""
    # forward: y = γ·x̂ + β
    total = dbeta.dtype.type(0)
    for n in range(dy.shape[0]):
        for h in range(dy.shape[1]):
            for col in range(dy.shape[2]):
                total += dy[n, h, col, t]
    dbeta[t] = total


@declare(SHAPES, items="N G", writes="part part_normal", derive=derive)
def grad_parts(t, part, part_normal, dy, x, gamma, mean, inv_std, groups=1):
    """Sums S = Σ γ·dy and Ŝ = Σ γ·dy·x̂ of each group, (N, G), from dy and x, (N, H, W, C)."""
    n, g = divmod(t, mean.shape[1])
    depth = x.shape[3] // groups
    middle = mean[n, g]
    total = total_normal = x.dtype.type(0)
    for h in range(x.shape[1]):
        for col in range(x.shape[2]):
            for c in range(g * depth, (g + 1) * depth):
                value = gamma[c] * dy[n, h, col, c]
                total += value
                total_normal += value * (x[n, h, col, c] - middle)
    part[n, g] = total
    part_normal[n, g] = total_normal * inv_std[n, g]


@declare(SHAPES, items="N H W C", writes="dx", derive=derive)
def grad_x(t, dx, dy, x, gamma, mean, inv_std, part, part_normal, groups=1):
    """Gradient of x, (N, H, W, C): inv_std·(γ·dy − (S + x̂·Ŝ) / M), S and Ŝ: part and part_normal, (N, G)."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std, where mean and inv_std depend on all of the group
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    depth = dx.shape[3] // groups
    g = c // depth
    values = dx.dtype.type(dx.shape[1] * dx.shape[2] * depth)
    normal = (x[n, h, col, c] - mean[n, g]) * inv_std[n, g]
    dx[n, h, col, c] = inv_std[n, g] * (
        gamma[c] * dy[n, h, col, c] - (part[n, g] + normal * part_normal[n, g]) / values
    )


@declare(SHAPES, items="N G", writes="tpart tpart_normal", derive=derive)
def tangent_parts(t, tpart, tpart_normal, tx, x, mean, inv_std, groups=1):
    """Sums Σ tx and Σ tx·x̂ of each group, (N, G), from tx and x, (N, H, W, C)."""
    n, g = divmod(t, mean.shape[1])
    depth = x.shape[3] // groups
    middle = mean[n, g]
    total = total_normal = x.dtype.type(0)
    for h in range(x.shape[1]):
        for col in range(x.shape[2]):
            for c in range(g * depth, (g + 1) * depth):
                total += tx[n, h, col, c]
                total_normal += tx[n, h, col, c] * (x[n, h, col, c] - middle)
    tpart[n, g] = total
    tpart_normal[n, g] = total_normal * inv_std[n, g]


@declare(SHAPES, items="N H W C", writes="ty", derive=derive)
def tangent_x(t, ty, tx, x, gamma, mean, inv_std, tpart, tpart_normal, groups=1):
    """Tangent ty, (N, H, W, C), that follows from tx, (N, H, W, C), alone."""
    # forward: y = γ·x̂ + β, x̂ = (x − mean)·inv_std, where mean and inv_std depend on all of the group
    rest, c = divmod(t, ty.shape[3])
    rest, col = divmod(rest, ty.shape[2])
    n, h = divmod(rest, ty.shape[1])
    depth = ty.shape[3] // groups
    g = c // depth
    values = ty.dtype.type(ty.shape[1] * ty.shape[2] * depth)
    normal = (x[n, h, col, c] - mean[n, g]) * inv_std[n, g]
    moved = tx[n, h, col, c] - (tpart[n, g] + normal * tpart_normal[n, g]) / values
    ty[n, h, col, c] = gamma[c] * inv_std[n, g] * moved


@declare(SHAPES, items="N H W C", writes="ty", derive=derive)
def tangent_affine(t, ty, x, mean, inv_std, tgamma=None, tbeta=None, groups=1):
    """Tangent ty = tγ·x̂ + tβ, (N, H, W, C), from x, (N, H, W, C); tgamma or tbeta, (C,), not given is 0."""
    # forward: y = γ·x̂ + β
    rest, c = divmod(t, ty.shape[3])
    rest, col = divmod(rest, ty.shape[2])
    n, h = divmod(rest, ty.shape[1])
    g = c // (ty.shape[3] // groups)
    total = tbeta[c] if tbeta.shape[0] else ty.dtype.type(0)
    if tgamma.shape[0]:
        total += (x[n, h, col, c] - mean[n, g]) * inv_std[n, g] * tgamma[c]
    ty[n, h, col, c] = total


TANGENT = (tangent_parts, tangent_x, tangent_affine)  # ty = γ·inv_std·(tx − (S + x̂·Ŝ) / M) + tγ·x̂ + tβ


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.group_norm(name, x, (1, g.shape(x)[3])[pick(0, 1)])
