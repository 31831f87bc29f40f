"""Leaky rectifier: y = x where x > 0, else slope·x. With dy = ∂L/∂y, dx = dy where x > 0, else slope·dy. NaN stays NaN.

What backward keeps is one bit an element; the mask and its bits are those of `relu`, here of x, so that a slope may be
0 or negative too.
Dimensions: N samples, E elements a sample (all axes after the first), B = ⌈E/8⌉ bytes of mask. Any float dtype.
"""

from ..kernels.geometry import mask_bytes, mask_classes
from ..kernels.passes import Bound, declare

SHAPES = {"x": "N E*", "y": "N E*", "mask": "uint8: N B", "dy": "N E*", "dx": "N E*"}
CHANNELS = "kept"


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, slope=0.01):
    """Output y, (N, E): x, (N, E), where it is above 0, else slope·x."""
    n, e = divmod(t, y.shape[1])
    value = x[n, e]
    below = y.dtype.type(slope) * value
    y[n, e] = value if value > 0 else below


@declare(SHAPES, items="N B", writes="mask", derive=mask_bytes, alike=mask_classes)
def pack_mask(t, mask, x):
    """Mask of x, (N, E), as bytes, (N, B), with a bit for each of eight elements, set where x is above 0."""
    n, b = divmod(t, mask.shape[1])
    end = 8 * b + 8 if 8 * b + 8 < x.shape[1] else x.shape[1]
    byte = 0
    for e in range(8 * b, end):
        if x[n, e] > 0:
            byte |= 1 << (e - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N E", writes="dx", derive=mask_bytes)
def grad_x(t, dx, dy, mask, slope=0.01):
    """Gradient of x, (N, E): dy where the bit of mask, (N, B), is set, else slope·dy."""
    # forward: y = x where x > 0, else slope·x; the bit tells where
    n, e = divmod(t, dx.shape[1])
    above = (mask[n, e >> 3] >> (e & 7)) & 1
    value = dy[n, e]
    below = dx.dtype.type(slope) * value
    dx[n, e] = value if above else below


TANGENT = (Bound(grad_x, {"dx": "ty", "dy": "tx"}),)  # ty = tx where x > 0, else slope·tx


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    return g.leaky_relu(name, x, pick(0, 3) / 10)
