"""Block activation pruning: blocks of a map in which everything is small become zero, the rest stays as it is.

    y = 0 in a block where |x| < threshold everywhere, else y = x;   dx = 0 in those blocks, else dx = dy

A block is block[0] × block[1] pixels of one channel of one sample, counted from the top left; the last row and column
of blocks may be smaller. A zeroed block need not be stored, and its gradient is zero (our reading: nothing is passed
on through what is not kept). A NaN is not small. The idea is that of dynamic gradient sparse update (arXiv 2503.17959),
known to us second-hand; block shape and threshold are ours to choose.

What backward keeps is one bit a block, set where it stays: with U = ⌈H/block[0]⌉ and V = ⌈W/block[1]⌉, bit j of byte b
of a sample belongs to block 8·b + j = (u·V + v)·C + c.
Dimensions: N samples, H W rows and columns, C channels, B = ⌈U·V·C/8⌉ bytes of mask. Any float dtype.
"""

import numpy as np

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N H W C", "y": "N H W C", "mask": "uint8: N B", "dy": "N H W C", "dx": "N H W C"}
CHANNELS = "kept"


def derive(sizes, attrs):
    """B of a map of H × W × C; ShapeError where a block is below 1 or the threshold negative."""
    if min(attrs["block"]) < 1:
        raise ShapeError(f"block must be at least 1, got {attrs['block']}")
    if "threshold" in attrs and not attrs["threshold"] >= 0:
        raise ShapeError(f"threshold must be at least 0, got {attrs['threshold']}")
    return {"B": -(-block_sizes(sizes, attrs).size // 8)} if {"H", "W", "C"} <= sizes.keys() else {}


def block_sizes(sizes, attrs) -> np.ndarray:
    """Elements of each block of a sample: (U, V, C)."""
    rows, columns = (
        np.minimum(side, sizes[n] - np.arange(0, sizes[n], side)) for n, side in zip("HW", attrs["block"], strict=True)
    )
    return np.broadcast_to(np.outer(rows, columns)[:, :, None], (len(rows), len(columns), sizes["C"]))


def _elements(sizes, attrs):
    """Elements behind each byte of a mask."""
    elements = np.zeros(8 * sizes["B"], int)
    blocks = block_sizes(sizes, attrs).reshape(-1)
    elements[: blocks.size] = blocks
    return elements.reshape(-1, 8).sum(1)


@declare(SHAPES, items="N B", writes="mask", derive=derive, alike={"B": _elements})
def pack_mask(t, mask, x, block=(2, 2), threshold=0.0):
    """Mask of x, (N, H, W, C), as bytes, (N, B), with a bit for each of eight blocks, set where something is not small.

    Block activation pruning: the blocks whose bit is not set are zeroed.
    """
    n, b = divmod(t, mask.shape[1])
    channels = x.shape[3]
    across = (x.shape[2] + block[1] - 1) // block[1]
    blocks = (x.shape[1] + block[0] - 1) // block[0] * across * channels
    end = 8 * b + 8 if 8 * b + 8 < blocks else blocks
    byte = 0
    for i in range(8 * b, end):
        place, c = divmod(i, channels)
        u, v = divmod(place, across)
        bottom = (u + 1) * block[0] if (u + 1) * block[0] < x.shape[1] else x.shape[1]
        right = (v + 1) * block[1] if (v + 1) * block[1] < x.shape[2] else x.shape[2]
        stays = 0
        for h in range(u * block[0], bottom):  # every element is looked at: the work does not depend on the data
            for col in range(v * block[1], right):
                value = x[n, h, col, c]
                stays |= 0 if (value < threshold) & (value > -threshold) else 1
        byte |= stays << (i - 8 * b)
    mask[n, b] = byte


@declare(SHAPES, items="N H W C", writes="y", derive=derive)
def forward(t, y, x, mask, block=(2, 2)):
    """Output y, (N, H, W, C), of block activation pruning: x where its block's bit in mask, (N, B), is set, else 0."""
    rest, c = divmod(t, y.shape[3])
    rest, col = divmod(rest, y.shape[2])
    n, h = divmod(rest, y.shape[1])
    across = (y.shape[2] + block[1] - 1) // block[1]
    i = (h // block[0] * across + col // block[1]) * y.shape[3] + c
    stays = (mask[n, i >> 3] >> (i & 7)) & 1
    value = x[n, h, col, c]
    y[n, h, col, c] = value if stays else y.dtype.type(0)


@declare(SHAPES, items="N H W C", writes="dx", derive=derive)
def grad_x(t, dx, dy, mask, block=(2, 2)):
    """Gradient of x, (N, H, W, C): dy where the bit of its block in mask, (N, B), is set, else 0."""
    # forward: y = x where the bit of its block is set, else 0
    rest, c = divmod(t, dx.shape[3])
    rest, col = divmod(rest, dx.shape[2])
    n, h = divmod(rest, dx.shape[1])
    across = (dx.shape[2] + block[1] - 1) // block[1]
    i = (h // block[0] * across + col // block[1]) * dx.shape[3] + c
    stays = (mask[n, i >> 3] >> (i & 7)) & 1
    value = dy[n, h, col, c]
    dx[n, h, col, c] = value if stays else dx.dtype.type(0)


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # ty = tx in the blocks that stay, else 0
