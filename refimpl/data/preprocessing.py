"""What turns samples as their source holds them into what a net takes: plain data that a record can hold.

A net that was trained on standardised windows or stretched pictures is worth nothing without the means and the sizes
that its samples were made with. They are learnt from the training samples, stored as JSON, and applied to new samples
by the same function, with the same bits.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ..storage.files import InputError, quoted
from .pixels import Level, each, level_of, placed, suit, words
from .resized import Resized, as_dtype

AXES = "NHWC"  # of maps inside
LETTERS = "NHWCT"  # an array's axes: samples, rows, columns, channels; T, time, is that of columns
BLOCK = 256  # samples whose sums are taken at a time


class PreprocessingError(InputError):
    """What is stored as preprocessing is none, or samples do not fit it."""


@dataclass(frozen=True)
class Preprocessing:
    """How samples become maps (n, H, W, C); every step that is not needed has the value that leaves it out.

    kind: what a sample is: maps (of an array), image, window (of a recording) or sound. In the order of work:
    axes: letters of an array's axes, `NTC` is (samples, time, channels); divisor: of every value; mean, std: of each
    channel, which are subtracted and divided by; channels: to which one is repeated; size: (H, W) to which images are
    stretched; black, white: what 0 and 1 become after the division (`pixels`); dtype: of the maps.
    How files are read: bits: that a pixel of more than eight uses; rate: samples a second; window, stride: samples;
    frames: rows of a map of sound; columns: names of a table's channels.
    """

    kind: str = "maps"
    axes: str = AXES
    divisor: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: int | None = None
    size: tuple[int, int] | None = None
    black: Level = 0.0
    white: Level = 1.0
    dtype: str = "float32"
    bits: int = 16
    rate: float | None = None
    window: int | None = None
    stride: int | None = None
    frames: int | None = None
    columns: tuple[str, ...] = ()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Maps (n, H, W, C) of samples (n, …) whose axes are `axes`, a new array. PreprocessingError: they do not fit.

        Images of 8 bits may have any size: they are stretched as `Resized` does.
        """
        x = to_maps(x, self.axes)
        if self.mean and x.shape[3] != len(self.mean):
            raise PreprocessingError(
                f"the samples have C={x.shape[3]} channels, but the net was made for C={len(self.mean)}"
            )
        channels = x.shape[3] if x.shape[3] != 1 else self.channels or 1
        if not suit(self.black, self.white, channels):
            raise PreprocessingError(
                f"the samples have C={x.shape[3]} channels, but the net takes pixels of {words(self.black, self.white)}"
            )
        if self.size is None or x.shape[1:3] == self.size:
            return self.finished(self.begun(x))
        if x.dtype != np.uint8 or self.mean or self.divisor != 255:
            has, wants = ("x".join(map(str, size)) for size in (x.shape[1:3], self.size))
            raise PreprocessingError(f"the samples have maps of {has}, but the net takes {wants}")
        x = repeated(x, self.channels)
        return Resized(x, self.size, self.black, self.white, dtype=np.dtype(self.dtype))[:]

    def begun(self, x: np.ndarray) -> np.ndarray:
        """Float32 maps of maps of any dtype: divided, standardised, repeated; a new array."""
        out = x.astype(np.float32)
        if self.divisor != 1:
            out /= np.float32(self.divisor)
        standardise(out, self.mean, self.std)
        return repeated(out, self.channels)

    def finished(self, out: np.ndarray) -> np.ndarray:
        """Float32 maps, changed in place, with the net's black and white and its dtype."""
        return as_dtype(with_ends(out, self.black, self.white), np.dtype(self.dtype))

    def with_pixels(self, black: Level, white: Level, dtype: np.dtype) -> "Preprocessing":
        """The same, ending in other values for black and white."""
        return replace(self, black=level_of(black), white=level_of(white), dtype=dtype.name)

    def to_json(self) -> dict:
        """A dict of plain numbers, texts and lists."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, found: dict) -> "Preprocessing":
        """What `to_json` gave; PreprocessingError for anything else."""
        known = {f.name: f.default for f in fields(cls)}
        if not isinstance(found, dict) or not found.keys() <= known.keys():
            raise PreprocessingError(f"the preprocessing {quoted(found)} is none that this version knows")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
        made = cls(**values)
        if not made._fits():
            raise PreprocessingError(f"the preprocessing {quoted(found)} holds values that no data set has")
        return made

    def _fits(self) -> bool:
        """Are the values such as a data set could have?"""
        if not all(isinstance(v, tuple) for v in (self.mean, self.std, self.columns, self.size or ())):
            return False
        numbers = (self.divisor, *each(self.black), *each(self.white), *self.mean, *self.std)
        counts = (self.channels, self.window, self.stride, self.frames, *(self.size or ()), self.bits)
        return (
            all(type(v) in (int, float) and math.isfinite(v) for v in numbers)
            and all(v is None or type(v) is int and v > 0 for v in counts)
            and (self.size is None or len(self.size) == 2)
            and all(isinstance(v, str) for v in (self.kind, self.axes, self.dtype, *self.columns))
            and (self.rate is None or type(self.rate) in (int, float) and 0 < self.rate < math.inf)
            and len(self.mean) == len(self.std)
            and all(map(each, (self.black, self.white)))
            and suit(self.black, self.white, self.channels)
            and all(v > 0 for v in (*self.std, self.divisor))
            and axes_fit(self.axes)
            and self.dtype in ("float32", "float64", "int8", "int16", "int32", "uint8")
        )


def axes_fit(axes: str) -> bool:
    """Are these letters axes of samples: N first, each once, time or columns but not both?"""
    return (
        axes[:1] == "N"
        and set(axes) <= set(LETTERS)
        and len(set(axes)) == len(axes) > 1
        and not {"T", "W"} <= set(axes)
    )


def to_maps(x: np.ndarray, axes: str) -> np.ndarray:
    """`x`, whose axes are these letters, as (N, H, W, C), a view; an axis that it lacks has the length 1."""
    if x.ndim != len(axes):
        shape = ", ".join(axes)
        raise PreprocessingError(f"the samples must be ({shape}), but their shape is {x.shape}")
    axes = axes.replace("T", "W")
    for letter in AXES:
        if letter not in axes:
            x, axes = x[..., None], axes + letter
    return x.transpose([axes.index(letter) for letter in AXES])


def repeated(x: np.ndarray, channels: int | None) -> np.ndarray:
    """Maps (N, H, W, C) whose one channel is repeated where another number is wanted."""
    return x if channels is None or channels == x.shape[3] else np.repeat(x, channels, axis=3)


def with_ends(x: np.ndarray, black: Level, white: Level) -> np.ndarray:
    """Float32 values (…, C) of which 0 is black and 1 is white, in place those of another black and white."""
    return x if (black, white) == (0, 1) else placed(x, black, white)


def moments(blocks: Iterable[np.ndarray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of maps (n, H, W, C), block by block, read twice.

    A block's sums are rounded once (`math.fsum`), so that no order and no vector unit enters. A channel that never
    changes has the deviation 1: it becomes 0. blocks: may be iterated twice.
    """
    mean = _mean(blocks, lambda x: x)
    square = _mean(blocks, lambda x: np.square(x - np.array(mean)))
    return mean, tuple(math.sqrt(s) if s > 1e-12 * m * m else 1.0 for s, m in zip(square, mean, strict=True))


def _mean(blocks, of) -> tuple[float, ...]:
    count, sums = 0, []
    for x in blocks:
        values = of(x.reshape(-1, x.shape[3]).astype(np.float64))
        count += len(values)
        sums.append([math.fsum(column.tolist()) for column in values.T])
    return tuple(math.fsum(column) / count for column in zip(*sums, strict=True))


def standardise(x: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Float32 maps (n, H, W, C) with these moments subtracted and divided by, in place."""
    if mean:
        x -= np.array(mean, np.float32)
        x /= np.array(std, np.float32)
