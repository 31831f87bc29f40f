"""ReLU of whole numbers that share an exponent: y = max(x, 0), dx = dy where y > 0, else 0; the exponents stay.

Dimensions: N samples, E elements a sample.
"""

from ..kernels.passes import declare

SHAPES = {"x": "int8: N E*", "y": "int8: N E*", "dy": "int8: N E*", "dx": "int8: N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x):
    """Output y, (N, E), of x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    value = x[n, e]
    y[n, e] = value if value > 0 else y.dtype.type(0)


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, y):
    """Gradient of x, (N, E), from dy and y, (N, E)."""
    # forward: y = max(x, 0)
    n, e = divmod(t, dx.shape[1])
    value = dy[n, e]  # read always: the work does not depend on the data
    dx[n, e] = value if y[n, e] > 0 else dx.dtype.type(0)
