"""Batch normalisation with fixed statistics: y = x·scale + shift, per channel.

    scale = γ / √(running_var + ε),  shift = β − running_mean·scale

It takes the place of `batch_norm` (same parameters and state) at inference and where a plan freezes the statistics.
With dy = ∂L/∂y:  dx = dy·scale,  dγ = Σ dy·(x − running_mean) / √(running_var + ε),  dβ = Σ dy.
Dimensions: N samples, H W rows and columns, C channels. Any float dtype.
"""

import math

from ..kernels.passes import declare

SHAPES = {
    "x": "N H W C", "gamma": "C", "beta": "C", "running_mean": "C", "running_var": "C", "scale": "C", "shift": "C",
    "y": "N H W C", "dy": "N H W C", "dx": "N H W C", "dgamma": "C", "dbeta": "C",
}  # fmt: skip
PARAMS = ("gamma", "beta")
STATE = ("running_mean", "running_var")
TRAINS = "statistics"


@declare(SHAPES, items="C", writes="scale")
def scale(t, scale, gamma, running_var, eps=1e-5):
    """Scale (C,) = γ / √(running_var + ε)."""
    scale[t] = gamma[t] / math.sqrt(running_var[t] + eps)


@declare(SHAPES, items="C", writes="shift")
def shift(t, shift, beta, running_mean, scale):
    """Shift (C,) = β − running_mean·scale."""
    shift[t] = beta[t] - running_mean[t] * scale[t]


@declare(SHAPES, items="N H W C", writes="y")
def forward(t, y, x, scale, shift):
    """Y (N, H, W, C) = x·scale + shift."""
    t, c = divmod(t, y.shape[3])
    t, w = divmod(t, y.shape[2])
    n, h = divmod(t, y.shape[1])
    y[n, h, w, c] = x[n, h, w, c] * scale[c] + shift[c]


@declare(SHAPES, items="N H W C", writes="dx")
def grad_x(t, dx, dy, scale):
    """Dx (N, H, W, C) = dy·scale."""
    t, c = divmod(t, dx.shape[3])
    t, w = divmod(t, dx.shape[2])
    n, h = divmod(t, dx.shape[1])
    dx[n, h, w, c] = dy[n, h, w, c] * scale[c]


@declare(SHAPES, items="C", writes="dgamma", sums="N H W")
def grad_gamma(t, dgamma, dy, x, running_mean, running_var, eps=1e-5):
    """Dgamma (C,) = Σ_{n,h,w} dy·(x − running_mean) / √(running_var + ε)."""
    middle = running_mean[t]
    total = dgamma.dtype.type(0)
    for n in range(x.shape[0]):
        for h in range(x.shape[1]):
            for w in range(x.shape[2]):
                total += dy[n, h, w, t] * (x[n, h, w, t] - middle)
    dgamma[t] = total / math.sqrt(running_var[t] + eps)


@declare(SHAPES, items="C", writes="dbeta", sums="N H W")
def grad_beta(t, dbeta, dy):
    """Dbeta (C,) = Σ_{n,h,w} dy."""
    total = dbeta.dtype.type(0)
    for n in range(dy.shape[0]):
        for h in range(dy.shape[1]):
            for w in range(dy.shape[2]):
                total += dy[n, h, w, t]
    dbeta[t] = total
