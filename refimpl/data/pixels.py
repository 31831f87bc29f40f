"""What a net takes for black and for white, pixels of 0 and of 255: one number each, or one for each channel.

Nets that PyTorch exported mostly take photographs of which each channel has lost ImageNet's mean and is divided by its
deviation, so that black and white are other numbers in each. All that scales pixels does it by what stands here.
"""

import math
from typing import Any

import numpy as np

Level = float | tuple[float, ...]  # what a net takes for black, or for white
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photographs, whose pixels go from 0 to 1
IMAGENET: tuple[Level, Level] = (
    tuple(-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)),
    tuple((1 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)),
)


def each(level: Level) -> tuple[float, ...]:
    """The numbers of a level."""
    return level if isinstance(level, tuple) else (level,)


def level_of(found: Any) -> Level:
    """A level as JSON or a user has it, a number or numbers in a row; TypeError or ValueError where it is none."""
    level = tuple(map(float, found)) if isinstance(found, list | tuple) else float(found)
    if not each(level) or not all(map(math.isfinite, each(level))):
        raise ValueError(f"{found!r} is no number, nor one for each channel")
    return level


def suit(black: Level, white: Level, channels: int | None = None) -> bool:
    """Are they one number, or one for each channel? channels: how many there are, None where that is not known."""
    counts = [len(level) for level in (black, white) if isinstance(level, tuple)]
    return all(count == (channels or counts[0]) for count in counts)


def span_of(black: Level, white: Level) -> tuple[float, float]:
    """The least and the greatest number that a pixel may become."""
    ends = (*each(black), *each(white))
    return min(ends), max(ends)


def words(black: Level, white: Level) -> str:
    """`-1 to 1`, `(-2.1179, -2.03571, -1.80444) to (2.24891, 2.42857, 2.64)`."""
    low, high = (", ".join(f"{v:g}" for v in each(level)) for level in (black, white))
    return f"{low} to {high}" if len(each(black)) == len(each(white)) == 1 else f"({low}) to ({high})"


def steps(black: Level, white: Level, top: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """What values from 0, black, to `top`, white, are multiplied by, and what is added: float64, () or (C,)."""
    return np.subtract(white, black) / np.float64(top), np.asarray(black, np.float64)


def reached(values: tuple[float, ...], black: Level, white: Level, top: float = 1.0) -> tuple[float, float]:
    """The least and the greatest of what values become, of which 0 is black and `top` is white."""
    scale, offset = steps(black, white, top)
    found = np.multiply.outer(np.array(values, np.float64), scale) + offset
    return float(found.min()), float(found.max())


def placed(x: np.ndarray, black: Level, white: Level, top: float = 1.0) -> np.ndarray:
    """Float32 values (…, C) of which 0 is black and `top` is white, in place those of this black and white."""
    scale, offset = (v.astype(np.float32) for v in steps(black, white, top))
    parts = [x] if scale.ndim == offset.ndim == 0 else [x[..., c] for c in range(x.shape[-1])]
    for part, s, o in zip(parts, *(np.broadcast_to(v, len(parts)) for v in (scale, offset)), strict=True):
        part *= s
        part += o
    return x
