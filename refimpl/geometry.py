"""Where windows fall on a map: output sizes, and which (window, tap) pairs land inside.

Attributes in this project: `stride (rows, columns)`, `dilation (rows, columns)`,
`pad ((top, bottom), (left, right))`.
"""

import numpy as np


def out_size(size, window, stride, dilation, pad):
    """Number of windows along one axis, P from H and R; works on integers and on SymPy expressions alike."""
    return (size + pad[0] + pad[1] - dilation * (window - 1) - 1) // stride + 1


def same_pad(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's "same": P = ⌈H / stride⌉, the odd row of padding below or to the right."""
    total = max((-(-size // stride) - 1) * stride + dilation * (window - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def inside(size: int, window: int, out: int, stride: int, dilation: int, pad: tuple[int, int]) -> np.ndarray:
    """Boolean (out, window): does tap r of window p fall inside the map of `size`?"""
    index = np.arange(out)[:, None] * stride - pad[0] + np.arange(window)[None, :] * dilation
    return (index >= 0) & (index < size)


def classes(rows) -> np.ndarray:
    """Number each index by its row of `rows`: equal rows get equal numbers."""
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def hits(size: int, window: int, out: int, stride: int, dilation: int, pad: tuple[int, int]) -> np.ndarray:
    """Boolean (size, window): does some window p put its tap r on map index h?"""
    offset = np.arange(size)[:, None] + pad[0] - np.arange(window)[None, :] * dilation
    return (offset >= 0) & (offset % stride == 0) & (offset // stride < out)
