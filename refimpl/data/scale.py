"""What the values of an array are, where its file does not say: axes, pixels, or measurements to be standardised."""

import numpy as np

from .dataset import BLOCK, DataError
from .pixels import Level, span_of

MOST_CHANNELS = 32  # of a window of measurements, whose other axis is time
LONGER = 3  # times as long as its channels are many
MEAN, LEAST, MOST = 3.0, 0.2, 5.0  # of channels that are as a net wants them: largest mean, deviations
KEEP, STANDARDISE, PIXELS = VALUES = ("keep", "standardise", "pixels")
IMAGE_CHANNELS = (1, 3)
BEYOND = 0.1  # of the range of a net's pixels by which values may leave it: resizing may overshoot


def axes_of(shape: tuple[int, ...], dtype: np.dtype, what: str) -> tuple[str, str]:
    """The axes of an array of samples, and why where that was to be guessed. DataError where they cannot be told.

    uint8 are images. Three axes of which the shorter one is much shorter are time and channels, else rows and columns.
    Four axes are rows, columns, channels, but with 1 or 3 first and more last they are channels, rows, columns.
    """
    if len(shape) not in (3, 4):
        raise DataError(f"{what} must be (N, H, W, C) or (N, H, W), but its shape is {shape}")
    if len(shape) == 3:
        short, long = sorted(shape[1:])
        if dtype == np.uint8 or short > MOST_CHANNELS or long < LONGER * short or long < 8:
            return "NHW", ""
        axes = "NTC" if shape[1] == long else "NCT"
        return axes, f"{what} {shape} is {_words(axes)}: the longer axis is time"
    first, rows, columns = shape[1:]
    square = rows == columns and rows > 4
    if first in (1, 3) and columns > 4 and (square or (first == 3 and rows > 4)):
        return "NCHW", f"{what} {shape} is {_words('NCHW')}: channels come first"
    return "NHWC", ""


def _words(axes: str) -> str:
    return f"({', '.join(axes)})"


def ends_of(x: np.ndarray) -> tuple[float, float]:
    """The least and the largest value, block by block."""
    blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
    return float(min(b.min() for b in blocks)), float(max(b.max() for b in blocks))


def divisor_of(x: np.ndarray, ends: tuple[float, float]) -> tuple[float | None, str]:
    """What pixels (N, H, W, C) are divided by to lie from 0 to 1, and why; None where the values are no pixels.

    uint8 always are. Others are where they have 1 or 3 channels and rows, and lie from 0 to 1, from 0 to 255, or, of
    uint16, from 0 to what some bits hold.
    """
    low, high = ends
    if x.dtype == np.uint8:
        return 255.0, ""
    if x.shape[3] not in IMAGE_CHANNELS or 1 in x.shape[1:3] or low < 0 or high == low:
        return None, ""
    if high <= 1:
        return 1.0, f"{x.dtype} values from {low:g} to {high:g} are pixels from 0 to 1"
    whole = x.dtype.kind in "ui"
    if high <= 255 and (whole or high > 128):
        return 255.0, f"{x.dtype} values from {low:g} to {high:g} are pixels from 0 to 255"
    if x.dtype == np.uint16:
        bits = next(b for b in (10, 12, 14, 16) if high < 2**b)
        return float(2**bits - 1), f"uint16 values up to {high:g} are pixels of {bits} bits"
    return None, ""


def check_range(what: str, ends: tuple[float, float], black: Level, white: Level) -> None:
    """DataError unless values with these ends may be maps of a net that takes `black` to `white` for pixels.

    For values that are not known to be pixels: what is, has the net's range. what: how messages call the samples.
    """
    (low, high), (least, most) = ends, span_of(black, white)
    room = BEYOND * (most - least)
    if low < least - room or high > most + room:
        raise DataError(
            f"{what} has values from {low:.4g} to {high:.4g}, but the net takes pixels: give them from 0 to 255, from "
            f"0 to 1, or as they enter the net, from {least:.4g} to {most:.4g}"
        )


def may_measure(x: np.ndarray) -> bool:
    """May values (N, H, W, C) be measurements to standardise? Whole numbers, and floats that are no maps of rows."""
    return x.dtype.kind in "ui" or x.shape[1] == 1 < x.shape[2] * x.shape[3]


def measured(x: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Why measurements (N, H, W, C) of these moments are to be standardised; empty where they are fit as they are.

    Whole numbers always are; floats are kept where every channel's mean and deviation are near 0 and 1.
    """
    if x.dtype.kind in "ui":
        return f"{x.dtype} counts are standardised"
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        if abs(m) > MEAN or not LEAST <= s <= MOST:
            return f"values are standardised: channel {channel} has the mean {m:.3g} and the deviation {s:.3g}"
    return ""
