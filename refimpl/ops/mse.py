"""Mean squared error over all elements: loss = Σ_{n,e} (x − target)² / (N·E), dx = 2·(x − target) / (N·E).

Along a direction:  tloss = Σ_n tlosses[n] / N,  tlosses[n] = Σ_e 2·(x − target)·tx / E.

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import numpy as np

from ..kernels.passes import Bound, declare

SHAPES = {
    "x": "N E*", "target": "N E*", "losses": "N", "loss": "1", "dx": "N E*",
    "tx": "N E*", "tlosses": "N",
}  # fmt: skip


def measures(output, target, ignored=None):
    """Of outputs and targets (M, …): `mse`, the mean squared error, and `mae`, the mean absolute error; loss is mse."""
    difference = output.astype(np.float64) - target
    mse = float(np.mean(np.square(difference)))
    return {"mse": mse, "mae": float(np.mean(np.abs(difference))), "loss": mse}


@declare(SHAPES, items="N", writes="losses", sums="E", adds="E", divisors={"losses": lambda sizes: sizes["E"]})
def sample_losses(t, losses, x, target):
    """Loss of each sample, (N,), the mean over its elements, from x and target, (N, E)."""
    total = losses.dtype.type(0)
    for e in range(x.shape[1]):
        difference = x[t, e] - target[t, e]
        total += difference * difference
    losses[t] = total / losses.dtype.type(x.shape[1])


@declare(SHAPES, items="1", writes="loss", sums="N", adds="N", divisors={"loss": lambda sizes: sizes["N"]})
def mean_loss(t, loss, losses):
    """Mean loss, (1,), of losses, (N,)."""
    total = loss.dtype.type(0)
    for n in range(losses.shape[0]):
        total += losses[n]
    loss[0] = total / loss.dtype.type(losses.shape[0])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, x, target):
    """Gradient of x, (N, E), from x and target, (N, E)."""
    # forward: loss = Σ_{n,e} (x[n,e] − target[n,e])² / (N·E)
    n, e = divmod(t, dx.shape[1])
    difference = x[n, e] - target[n, e]
    dx[n, e] = (difference + difference) / dx.dtype.type(dx.shape[0] * dx.shape[1])


@declare(SHAPES, items="N", writes="tlosses", sums="E", adds="E", divisors={"tlosses": lambda sizes: sizes["E"]})
def tangent_losses(t, tlosses, tx, x, target):
    """Tangent of each sample's loss, (N,), from tx, x and target, (N, E)."""
    # sample_losses: losses[n] = Σ_e (x[n,e] − target[n,e])² / E
    total = tlosses.dtype.type(0)
    for e in range(x.shape[1]):
        difference = x[t, e] - target[t, e]
        total += (difference + difference) * tx[t, e]
    tlosses[t] = total / tlosses.dtype.type(x.shape[1])


TANGENT = (tangent_losses, Bound(mean_loss, {"loss": "tloss", "losses": "tlosses"}))
