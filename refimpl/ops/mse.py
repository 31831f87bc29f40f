"""Mean squared error over all elements: loss = Σ_{n,e} (x − target)² / (N·E), dx = 2·(x − target) / (N·E).

Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

from ..kernels.passes import declare

SHAPES = {"x": "N E*", "target": "N E*", "losses": "N", "loss": "1", "dx": "N E*"}


@declare(SHAPES, items="N", writes="losses", sums="E")
def sample_losses(t, losses, x, target):
    """Losses (N,) of x, target (N, E): the mean over each sample."""
    total = losses.dtype.type(0)
    for e in range(x.shape[1]):
        d = x[t, e] - target[t, e]
        total += d * d
    losses[t] = total / losses.dtype.type(x.shape[1])


@declare(SHAPES, items="1", writes="loss", sums="N")
def mean_loss(t, loss, losses):
    """Loss (1,): the mean of losses (N,)."""
    total = loss.dtype.type(0)
    for n in range(losses.shape[0]):
        total += losses[n]
    loss[0] = total / loss.dtype.type(losses.shape[0])


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, x, target):
    """Dx (N, E) of x, target (N, E)."""
    n, e = divmod(t, dx.shape[1])
    d = x[n, e] - target[n, e]
    dx[n, e] = (d + d) / dx.dtype.type(dx.shape[0] * dx.shape[1])
