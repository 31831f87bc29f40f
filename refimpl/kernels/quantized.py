"""Whole numbers that stand for real ones: value = scale·(q − zero_point).

Scale and zero point are arrays of their own: parameters of the graph, or further outputs of the node that makes q. So
they have a place and bytes, are saved and come back like every other array, and may change: a parameter that a pass
changes is state, such as the exponent that a tensor of NITI shares (Wang et al. 2020).

A scale of floats is the factor itself, a scale of integers the exponent of a power of two. It has one entry, or one for
each index along an axis of q, such as the output channels of a kernel. The zero point is an array of integers, of one
entry or as many as the scale; without one it is 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

Held = TypeVar("Held")
INT8, INT32 = np.iinfo(np.int8), int(np.iinfo(np.int32).max)
BIAS_END = 1 << 28  # of a bias that trains: real biases of 8-bit maps and 16-bit weights reach about a hundredth of it


@dataclass(frozen=True)
class Quantized(Generic[Held]):
    """Where scale and zero point of an array are: by their names in a graph, as buffers in a program.

    axis: of the array, along which the scale has its entries; None where it has a single one.
    """

    scale: Held
    zero_point: Held | None = None
    axis: int | None = None


class MapEnds(NamedTuple):
    """What sums of weights with an int8 map are made of: how many products each, and the map's zero point.

    Ours: of int32 a bias gets BIAS_END, an eighth, and the products share the rest evenly, so that no sum overflows as
    long as no weight is beyond `weight_end` and no bias beyond BIAS_END, whatever the map is.
    """

    products: int
    x_zero: int

    @property
    def largest(self) -> int:
        """The largest magnitude of x − x_zero."""
        return max(INT8.max - self.x_zero, self.x_zero - INT8.min)

    @property
    def weight_end(self) -> int:
        """The largest magnitude of a weight."""
        return (INT32 - BIAS_END) // (self.products * self.largest)


class Array(Protocol):
    """What is asked of an array that may be quantized, and of one that holds a scale or a zero point."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype | None:
        """Its dtype, None for the float dtype of a program."""


def check_quantized(what: str, array: Array, held: Callable[[str], Array | None]) -> None:
    """ValueError where the scale or zero point of `array`, called `what`, does not fit it; held: finds them by name."""
    q: Quantized[str] | None = getattr(array, "quantized", None)
    if q is None:
        return
    if array.dtype is None or array.dtype.kind not in "iu":
        raise ValueError(f"{what} is quantized, so its dtype must be an integer one, got {array.dtype or 'floats'}")
    if q.axis is not None and not 0 <= q.axis < len(array.shape):
        raise ValueError(f"{what} has axes 0 to {len(array.shape) - 1}, so its scale cannot be along {q.axis}")
    length = 1 if q.axis is None else array.shape[q.axis]
    for kind, name, lengths in (("scale", q.scale, (length,)), ("zero point", q.zero_point, (1, length))):
        if name is None:
            continue
        found = held(name)
        if found is None:
            raise ValueError(f"the {kind} of {what} must be a parameter or a tensor of its graph, got {name!r}")
        if found.shape not in [(n,) for n in lengths]:
            raise ValueError(f"the {kind} {name} of {what} must have the shape ({length},), got {found.shape}")
        if kind == "zero point" and (found.dtype is None or found.dtype.kind not in "iu"):
            raise ValueError(f"the zero point {name} of {what} must be of integers, got {found.dtype or 'floats'}")


def each(shape: tuple[int, ...], axis: int | None) -> int:
    """Consecutive elements of an array of `shape` that share an entry of a scale along `axis`, whatever its views."""
    return 1 if axis is None else math.prod(shape[axis + 1 :])


def entries(shape: tuple[int, ...], count: int, each: int, start: int = 0) -> np.ndarray:
    """Which of `count` entries belongs to each element of an array of `shape` that begins at element `start`."""
    return ((start + np.arange(math.prod(shape))) // each % count).reshape(shape)


def factors(scale: np.ndarray) -> np.ndarray:
    """The factors that a scale holds, float64."""
    return np.ldexp(1.0, scale) if scale.dtype.kind in "iu" else scale.astype(np.float64)


def real(
    q: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None = None, each: int = 1, start: int = 0
) -> np.ndarray:
    """The real numbers, float64, of an array, or of the part of one that begins at its element `start`."""
    zero = np.zeros(1, np.int64) if zero_point is None else zero_point.astype(np.int64)
    of_scale, of_zero = (entries(q.shape, len(a), each, start) for a in (scale, zero))
    return factors(scale)[of_scale] * (q.astype(np.int64) - zero[of_zero])


def whole(
    values: np.ndarray, dtype: np.dtype, scale: np.ndarray, zero_point: np.ndarray | None = None, each: int = 1
) -> np.ndarray:
    """The whole numbers nearest to real ones, a half to the even one, cut off where `dtype` ends."""
    zero = np.zeros(1, np.int64) if zero_point is None else zero_point
    of_scale, of_zero = (entries(values.shape, len(a), each) for a in (scale, zero))
    q, ends = np.rint(values / factors(scale)[of_scale]) + zero[of_zero], np.iinfo(dtype)
    return q.clip(ends.min, ends.max).astype(dtype)


def symmetric(values: np.ndarray, dtype: np.dtype, scale: np.ndarray, each: int) -> np.ndarray:
    """A scale like `scale` by which the largest magnitude of its elements becomes the largest of a signed `dtype`.

    arXiv 2411.04036 eq. (5): max|w| / (2^(bits−1) − 1); of integers the next exponent that holds it. Of zeros it is 1.
    """
    most = np.zeros(len(scale))
    np.maximum.at(most, entries(values.shape, len(scale), each), np.abs(values))
    found = np.where(most > 0, most / np.iinfo(dtype).max, 1.0)
    return (np.ceil(np.log2(found)) if scale.dtype.kind in "iu" else found).astype(scale.dtype)


def largest_sum(w: np.ndarray, b: np.ndarray | None, ends: tuple[int, int]) -> np.ndarray:
    """The largest magnitude, int64 (K,), that Σ x·w + b can take over all whole x from the one end to the other.

    w: (…, K), b: (K,) or None; ends: of x − x_zero, at or below 0 and at or above it.
    """
    least, most = sum_ends(w, ends)
    shift = 0 if b is None else b.astype(np.int64)
    return np.maximum(abs(most + shift), abs(least + shift))


def sum_ends(w: np.ndarray, ends: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest Σ x·w, int64 (K,) each; arguments as those of `largest_sum`."""
    flat = w.astype(np.int64).reshape(-1, w.shape[-1])
    above, below = flat.clip(min=0).sum(0), flat.clip(max=0).sum(0)
    return above * ends[0] + below * ends[1], above * ends[1] + below * ends[0]
