"""Where windows fall on a map: output sizes, and which (window, tap) pairs land inside.

Attributes in this project: `stride (rows, columns)`, `dilation (rows, columns)`,
`pad ((top, bottom), (left, right))`.
"""

from collections.abc import Callable

import numpy as np

from .kernel import helper
from .passes import ShapeError
from .traced import larger


def out_size(size, window, stride, dilation, pad):
    """Number of windows along one axis, P from H and R; works on integers and on SymPy expressions alike."""
    return (size + pad[0] + pad[1] - dilation * (window - 1) - 1) // stride + 1


def same_pad(size: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """TensorFlow's "same": P = ⌈H / stride⌉, the odd row of padding below or to the right."""
    total = larger((-(-size // stride) - 1) * stride + dilation * (window - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def ceil_pad(window: int, stride: int, pad: tuple[int, int]) -> tuple[int, int]:
    """A pooling's padding with which P is rounded up, as in a ceil mode: as many windows as begin before the map ends.

    It grows below or to the right, by no more than leaves each window an element of the map; so for maps of any size.
    """
    before, after = pad
    return before, after + max(0, min(stride - 1, window - 1 - after))


MOST_DIGITS = 6  # of the order of a sample's elements


def parted(elements: int, size) -> dict[str, int]:
    """P, Q and R of a sample's elements as a map of P×Q = `size`; ShapeError where they cannot be shared out so."""
    p, q = (int(n) for n in size)
    if p < 1 or q < 1 or elements % (p * q):
        raise ShapeError(f"D={elements} elements are no {p}x{q}xR")
    return {"P": p, "Q": q, "R": elements // (p * q)}


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


def check_window(attrs) -> None:
    """ShapeError where a window, stride or dilation is below 1 or a padding below 0."""
    for name in ("window", "stride", "dilation"):
        if name in attrs and min(attrs[name]) < 1:
            raise ShapeError(f"{name} must be at least 1, got {attrs[name]}")
    if any(n < 0 for side in attrs["pad"] for n in side):
        raise ShapeError(f"pad must be at least 0, got {attrs['pad']}")


def conv_derive(sizes, attrs):
    """P, Q and G of a convolution; ShapeError where no window fits or the groups do not divide the channels."""
    check_window(attrs)
    found = {"G": 1} if "G" not in sizes else {}
    groups = sizes.get("G", 1)
    for channels in "CK":
        if sizes.get(channels, groups) % groups:
            raise ShapeError(f"{channels}={sizes[channels]} is not a multiple of G={groups} groups")
    for size, window, out, axis in (("H", "R", "P", 0), ("W", "S", "Q", 1)):
        if size not in sizes or window not in sizes:
            continue
        n = out_size(sizes[size], sizes[window], attrs["stride"][axis], attrs["dilation"][axis], attrs["pad"][axis])
        if n < 1:
            raise ShapeError(
                f"w has {window}={sizes[window]} with dilation {attrs['dilation'][axis]}, which does not fit into x "
                f"with {size}={sizes[size]} and padding {attrs['pad'][axis]}"
            )
        found[out] = n
    return found


def conv_axis(sizes, attrs, axis):
    """(size, window, out, stride, dilation, pad) of a convolution along rows (axis 0) or columns (axis 1)."""
    size, window, out = (("H", "R", "P"), ("W", "S", "Q"))[axis]
    return (sizes[size], sizes[window], sizes[out], *(attrs[a][axis] for a in ("stride", "dilation", "pad")))


def items_alike(letters: str, pairs: Callable, axis_of: Callable) -> dict[str, Callable]:
    """Classes of items that cost alike, for `declare(alike=…)`, along rows and columns, for which the letters stand.

    pairs: which items meet which elements along an axis, as `inside` or `hits`; axis_of: `conv_axis` or `pool_axis`.
    """
    return {
        letter: lambda sizes, attrs, axis=axis: classes(pairs(*axis_of(sizes, attrs, axis)))
        for axis, letter in enumerate(letters)
    }


CONV_OUT = items_alike("PQ", inside, conv_axis)
CONV_MAP = items_alike("HW", hits, conv_axis)
CONV_TAP = items_alike("RS", lambda *axis: inside(*axis).T, conv_axis)


def pool_axis(sizes, attrs, axis):
    """(size, window, out, stride, dilation, pad) of a pooling window along rows (axis 0) or columns (axis 1)."""
    size, out = (("H", "P"), ("W", "Q"))[axis]
    return sizes[size], attrs["window"][axis], sizes[out], attrs["stride"][axis], 1, attrs["pad"][axis]


def pool_derive(sizes, attrs):
    """P and Q of a pooling; ShapeError where no window fits or a window could lie wholly in the padding."""
    check_window(attrs)
    derived = {}
    for size, out, axis in (("H", "P", 0), ("W", "Q", 1)):
        window, pad = attrs["window"][axis], attrs["pad"][axis]
        if any(n >= window for n in pad):
            raise ShapeError(f"pad must be less than the window, got pad {pad} for window {window}")
        if "overhang" in attrs and not 0 <= attrs["overhang"][axis] <= pad[1]:
            raise ShapeError(
                f"overhang must lie in the padding below and to the right, got overhang {attrs['overhang']} for pad "
                f"{attrs['pad']}"
            )
        if size in sizes:
            derived[out] = out_size(sizes[size], window, attrs["stride"][axis], 1, pad)
            if derived[out] < 1:
                raise ShapeError(f"window {window} does not fit into x with {size}={sizes[size]} and padding {pad}")
    return derived


POOL_OUT = items_alike("PQ", inside, pool_axis)
POOL_MAP = items_alike("HW", hits, pool_axis)


@helper
def counted_taps(start, window, size, pad, overhang, include_pad):
    """Taps of a window from index `start` along one axis by which a mean divides: those inside a map of `size`.

    include_pad: and those in the padding, but for the last `overhang` of it.
    """
    low, high = (-pad[0], size + pad[1] - overhang) if include_pad else (0, size)
    first = start if start > low else low
    end = start + window if start + window < high else high
    return end - first


def drawn_pool(pick, large):
    """Letters and attributes of a pooling for tests (`drawn`, graph)."""
    window, stride = ((pick(1, 4), pick(1, 4)) for _ in range(2))
    pad = tuple((pick(0, w - 1), pick(0, w - 1)) for w in window)
    size = [max(1, window[i] - sum(pad[i])) + pick(0, 20 if large else 6) for i in range(2)]
    out = [out_size(size[i], window[i], stride[i], 1, pad[i]) for i in range(2)]
    channels = pick(1, 256 if large else 5)
    letters = {"N": pick(1, 32 if large else 3), "H": size[0], "W": size[1], "P": out[0], "Q": out[1], "C": channels}
    overhang = tuple(pick(0, after) for _, after in pad)
    return letters, {"window": window, "stride": stride, "pad": pad, "overhang": overhang}


def mask_bytes(sizes, attrs):
    """B = ⌈E/8⌉: the bytes of a sample's mask at one bit an element."""
    return {"B": -(-sizes["E"] // 8)} if "E" in sizes else {}


# The last byte of a mask may stand for fewer than eight elements.
mask_classes = {"B": lambda sizes, attrs: np.arange(sizes["B"]) < sizes["E"] // 8}


def mask_of(*letters: str) -> tuple[Callable, dict[str, Callable]]:
    """(derive, alike) of a mask of one bit an element of a sample of these letters: B bytes, the last one not full."""

    def elements(sizes):
        found = 1
        for letter in letters:
            found = found * sizes[letter]
        return found

    def derive(sizes, attrs):
        return {"B": -(-elements(sizes) // 8)} if set(letters) <= sizes.keys() else {}

    return derive, {"B": lambda sizes, attrs: np.arange(sizes["B"]) < elements(sizes) // 8}


SLICE = 4096  # elements of which a pass over a whole parameter writes one result


def slice_derive(sizes, attrs):
    """L, the slices of E elements."""
    return {"L": -(-sizes["E"] // SLICE)} if "E" in sizes else {}


def slice_lengths(sizes, attrs):
    """Elements of each slice, in order, for `declare(alike={"L": …})`."""
    return [min(SLICE, sizes["E"] - first) for first in range(0, sizes["E"], SLICE)]
