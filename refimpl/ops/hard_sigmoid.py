"""Hard sigmoid, a sigmoid made of lines: y = min(max(alpha·x + beta, 0), 1).

With dy = ∂L/∂y, dx = alpha·dy where 0 < y < 1, else 0. NaN stays NaN, without a gradient. Defaults are PyTorch's, alpha
1/6 and beta 1/2, so that y rises from x = −3 to 3; ONNX has alpha 0.2. The mask and its bits are those of `relu`.
Dimensions: N samples, E elements a sample (all axes after the first), B = ⌈E/8⌉ bytes of mask. Any float dtype.
"""

from ..kernels.geometry import mask_bytes, mask_classes
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "mask": "uint8: N B", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"
ALPHA, BETA = 1 / 6, 0.5


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, alpha=ALPHA, beta=BETA):
    """Output y = min(max(alpha·x + beta, 0), 1), (N, E), from x, (N, E)."""
    n, e = divmod(t, y.shape[1])
    float_ = y.dtype.type
    value = float_(alpha) * x[n, e] + float_(beta)
    value = float_(0) if value <= 0 else value
    y[n, e] = float_(1) if value >= 1 else value


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=mask_classes)
def pack_mask(t, mask, y):
    """Mask of y, (N, E), as bytes, (N, B), with a bit for each of eight elements, set where the gradient passes."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < y.shape[1] else y.shape[1]
    byte = 0
    for e in range(8 * b, end):
        value = y[n, e]
        if (value > 0) & (value < 1):
            byte |= 1 << (e - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N E", writes="dx", derive=mask_bytes)
def grad_x(t, dx, dy, mask, alpha=ALPHA):
    """Gradient of x, (N, E): alpha·dy where the bit of mask, (N, B), is set, else 0."""
    # forward: y = min(max(alpha·x + beta, 0), 1); the bit tells where y follows x
    n, e = divmod(t, dx.shape[1])
    passes = (mask[n, e >> 3] >> (e & 7)) & 1
    value = dx.dtype.type(alpha) * dy[n, e]
    dx[n, e] = value if passes else dx.dtype.type(0)


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = alpha·tx where 0 < y < 1, else 0


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.hard_sigmoid(name, x, pick(1, 4) / 5)
