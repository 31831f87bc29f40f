"""Batch normalisation with fixed statistics: y = x·scale + shift, per channel.

    scale = γ / √(running_var + ε),  shift = β − running_mean·scale

It takes the place of `batch_norm` (same parameters and state) at inference and where a plan freezes the statistics.
With dy = ∂L/∂y:  dx = dy·scale,  dγ = Σ dy·(x − running_mean) / √(running_var + ε),  dβ = Σ dy.
Along a direction:  ty = tx·scale + x·tscale + tshift,  tscale = tγ / √(running_var + ε),
tshift = tβ − running_mean·tscale.
Dimensions: N samples, H W rows and columns, C channels. Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N H W C", "gamma": "C", "beta": "C", "running_mean": "C", "running_var": "C", "scale": "C", "shift": "C",
    "y": "N H W C", "dy": "N H W C", "dx": "N H W C", "dgamma": "C", "dbeta": "C",
    "tgamma": "C", "tbeta": "C", "tscale": "C", "tshift": "C",
}  # fmt: skip
PARAMS = ("gamma", "beta")
STATE = ("running_mean", "running_var")
TRAINS = "statistics"


@declare(SHAPES, items="C", writes="scale")
def scale(t, scale, gamma, running_var, eps=1e-5):
    """Factor scale = γ / √(running_var + ε), (C,), from gamma and running_var, (C,)."""
    scale[t] = gamma[t] / math.sqrt(running_var[t] + eps)


@declare(SHAPES, items="C", writes="shift")
def shift(t, shift, beta, running_mean, scale):
    """Term shift = β − running_mean·scale, (C,), from beta, running_mean and scale, (C,)."""
    shift[t] = beta[t] - running_mean[t] * scale[t]


@declare(SHAPES, items="N H W C", writes="y")
def forward(t, y, x, scale, shift):
    """Output y = x·scale + shift, (N, H, W, C), from x, (N, H, W, C), scale and shift, (C,)."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    y[n, h, col, c] = x[n, h, col, c] * scale[c] + shift[c]


@declare(SHAPES, items="N H W C", writes="dx")
def grad_x(t, dx, dy, scale):
    """Gradient of x, (N, H, W, C): dy·scale, from dy, (N, H, W, C), and scale, (C,)."""
    # forward: y = x·scale + shift
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    dx[n, h, col, c] = dy[n, h, col, c] * scale[c]


@declare(SHAPES, items="C", writes="dgamma", sums="N H W", adds="N H W")
def grad_gamma(t, dgamma, dy, x, running_mean, running_var, eps=1e-5):
    """Gradient of gamma, (C,): Σ_{n,h,w} dy·(x − running_mean) / √(running_var + ε), from dy and x, (N, H, W, C)."""
    # forward: y = γ·(x − running_mean) / √(running_var + ε) + β
    middle = running_mean[t]
    total = dgamma.dtype.type(0)
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for col in range(x.shape[2]):
                total += dy[n, h, col, t] * (x[n, h, col, t] - middle)
    dgamma[t] = total / math.sqrt(running_var[t] + eps)


@declare(SHAPES, items="C", writes="dbeta", sums="N H W", adds="N H W")
def grad_beta(t, dbeta, dy):
    """Gradient of beta, (C,): Σ_{n,h,w} dy, from dy, (N, H, W, C)."""
    # forward: y = γ·(x − running_mean) / √(running_var + ε) + β
    total = dbeta.dtype.type(0)
    for n in range(dy.shape[0]):
        for h in range(dy.shape[1]):
            for col in range(dy.shape[2]):
                total += dy[n, h, col, t]
    dbeta[t] = total


@declare(SHAPES, items="C", writes="tscale tshift")
def tangent_scale(t, tscale, tshift, running_mean, running_var, tgamma=None, tbeta=None, eps=1e-5):
    """Tangents tscale and tshift, (C,), from running_mean, running_var, tgamma and tbeta, (C,); one not given is 0."""
    # scale: γ / √(running_var + ε); shift: β − running_mean·scale
    factor = term = tscale.dtype.type(0)
    if tbeta.shape[0]:
        term = tbeta[t]
    if tgamma.shape[0]:
        factor = tgamma[t] / math.sqrt(running_var[t] + eps)
        term = term - running_mean[t] * factor
    tscale[t] = factor
    tshift[t] = term


TANGENT = (  # ty = tx·scale + x·tscale + tshift
    Bound(grad_x, {"dx": "ty", "dy": "tx"}),
    Bound(forward, {"y": "ty", "scale": "tscale", "shift": "tshift"}),
    tangent_scale,
)
