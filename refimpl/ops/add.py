"""Sum of two branches: y = a + b. Both gradients are dy itself, so no kernel runs for them."""

from ..kernels.passes import declare

SHAPES = {"a": "N E*", "b": "N E*", "y": "N E*", "dy": "N E*", "da": "N E*", "db": "N E*"}
INPUTS = ("a", "b")
ALIASES = {"da": "dy", "db": "dy"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, a, b):
    """Output y, (N, E), the sum of a and b, (N, E): arrays of any number of axes seen as two."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = a[n, e] + b[n, e]


TANGENT = ("ta", "tb")  # ty = ta + tb
