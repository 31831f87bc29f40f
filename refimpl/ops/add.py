"""Sum of two branches: y = a + b. Both gradients are dy itself, so no kernel runs for them."""

from ..kernels.passes import declare

SHAPES = {"a": "N H W C", "b": "N H W C", "y": "N H W C", "dy": "N H W C", "da": "N H W C", "db": "N H W C"}
INPUTS = ("a", "b")
ALIASES = {"da": "dy", "db": "dy"}


@declare(SHAPES, items="N H W C", writes="y")
def forward(t, y, a, b):
    """Y (N, H, W, C) = a + b."""
    t, c = divmod(t, y.shape[3])
    t, v = divmod(t, y.shape[2])
    n, h = divmod(t, y.shape[1])
    y[n, h, v, c] = a[n, h, v, c] + b[n, h, v, c]
