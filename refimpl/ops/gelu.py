"""Gaussian error linear unit: y = x·Φ(x), Φ the distribution function of a standard normal (arXiv 1606.08415).

    exact        Φ = (1 + erf(x/√2)) / 2          ∂Φ/∂x = exp(−x²/2) / √(2π)
    approximate  Φ = (1 + tanh u) / 2             ∂Φ/∂x = (1 − tanh²u)/2 · ∂u/∂x
                 u = √(2/π)·(x + 0.044715·x³)     ∂u/∂x = √(2/π)·(1 + 3·0.044715·x²)

With dy = ∂L/∂y:  dx = dy·(Φ + x·∂Φ/∂x). Attribute `approximate`: True for the second form.
Dimensions: N samples, E elements a sample (all axes after the first). Any float dtype.
"""

import math

from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"
HALF_ROOT, DENSITY = math.sqrt(1 / 2), math.sqrt(1 / (2 * math.pi))
ROOT, CUBE = math.sqrt(2 / math.pi), 0.044715
SQUARE = 3 * CUBE


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, approximate=False):
    """Output y = x·Φ(x), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    float_ = y.dtype.type
    v = x[n, e]
    if approximate:
        twice = float_(1) + math.tanh(float_(ROOT) * (v + float_(CUBE) * (v * v * v)))
    else:
        twice = float_(1) + math.erf(v * float_(HALF_ROOT))
    y[n, e] = float_(0.5) * twice * v


@declare(SHAPES, items="N E", writes="dx")
def grad_x(t, dx, dy, x, approximate=False):
    """Gradient of x, (N, E), from dy and x, (N, E)."""
    # forward: y = x·Φ(x)
    n, e = divmod(t, dx.shape[1])
    float_ = dx.dtype.type
    v = x[n, e]
    if approximate:
        h = math.tanh(float_(ROOT) * (v + float_(CUBE) * (v * v * v)))
        twice = float_(1) + h
        density = float_(0.5) * (float_(1) - h * h) * (float_(ROOT) * (float_(1) + float_(SQUARE) * (v * v)))
    else:
        twice = float_(1) + math.erf(v * float_(HALF_ROOT))
        density = float_(DENSITY) * math.exp(float_(-0.5) * (v * v))
    dx[n, e] = dy[n, e] * (float_(0.5) * twice + v * density)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx·(Φ + x·∂Φ/∂x)


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.gelu(name, x, bool(pick(0, 1)))
