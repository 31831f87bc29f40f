"""Arrays of new samples: in which axes they are, whether they are pixels, and the maps that a net takes for them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .dataset import DataError, check_finite, check_maps
from .preprocessing import Preprocessing, to_maps
from .scale import check_range, divisor_of, ends_of

PIXEL = 255.0  # divisor of a net that was trained on pixels
ARRAYS = ("NHWC", "NCHW", "NTC", "NCT", "NHW")  # axes that arrays of samples have, by which a net's maps are known
Batch = tuple[list[str], np.ndarray]  # what each sample is called, and maps (n, H, W, C)


def of_array(x: np.ndarray, made: Preprocessing, batch: int, name: str, what: str) -> Iterator[Batch]:
    """The samples of an array, a batch at a time: `name` with a number, and maps. what: how messages call the array.

    DataError for an array that holds no samples, PreprocessingError for one that does not fit.
    """
    if x.dtype.kind not in "uif":
        raise DataError(f"{what} holds {x.dtype}, but samples must be integers (uint8 for images) or floats")
    if 0 in x.shape:
        raise DataError(f"{what} is empty: its shape is {x.shape}")
    called, window = [], made.window
    if made.kind == "window" and window and x.ndim == 2 and x.shape[1] == made.channels and len(x) > window:
        x, first = windows(x, window, made.stride)  # of one long recording
        called = [f"{name} {start} to {start + window - 1}" for start in first]
    x, made = arranged(x, made)
    if len(made.axes) == 4:
        x = check_maps(x, what)
    to_maps(x, made.axes)  # of all samples, so that a message has their shape
    check_finite(x, what)
    made = fitted(x, made, what)
    for start in range(0, len(x), batch):
        maps = made(x[start : start + batch])
        yield called[start : start + batch] if called else [f"{name} {start + i}" for i in range(len(maps))], maps


def windows(x: np.ndarray, window: int, stride: int | None) -> tuple[np.ndarray, range]:
    """The windows (n, 1, T, C) of a recording (L, C), one every `stride`, default a window; and where each begins."""
    first = range(0, len(x) - window + 1, stride or window)
    cut = [x[None, start : start + window] for start in first]
    return np.stack(cut) if cut else np.empty((0, 1, window, x.shape[1]), x.dtype), first


def arranged(x: np.ndarray, made: Preprocessing) -> tuple[np.ndarray, Preprocessing]:
    """`x` with an axis of samples, which a single one may lack, and the preprocessing with the axes that `x` has.

    They are those of `made` where the sizes agree, else others in which they are those of the net's maps. Pixels,
    which are stretched, need only the channels last. What fits in no way is left as it is.
    """
    rows, columns = made.size or (None, None)
    lengths = {"H": rows, "W": columns, "T": columns, "C": made.channels}
    for axes in dict.fromkeys((made.axes, made.axes[1:], *ARRAYS, *(axes[1:] for axes in ARRAYS))):
        absent = set("HWC") - set(axes.replace("T", "W"))
        if (
            len(axes) == x.ndim
            and all(n == lengths[letter] for letter, n in zip(axes, x.shape, strict=True) if letter != "N")
            and all(lengths[letter] == 1 for letter in absent)
        ):
            return (x, replace(made, axes=axes)) if axes[0] == "N" else (x[None], replace(made, axes=f"N{axes}"))
    if made.divisor == PIXEL and len(made.axes) == 4 and x.ndim == 3 and x.shape[2] == made.channels:
        return x[None], made
    if made.size is None and x.ndim == len(made.axes) - 1:  # nothing but the number of axes can tell
        return x[None], made
    return x, made


def fitted(x: np.ndarray, made: Preprocessing, what: str) -> Preprocessing:
    """What makes maps of these samples, whose axes are `made.axes`. Of a net of pixels uint8 are pixels.

    So are other numbers that `scale.divisor_of` takes for pixels, as it does where they are data to train on; what
    else lies in the range of the net's pixels is taken as it is. DataError for other values or another size.
    """
    if made.divisor != PIXEL or x.dtype == np.uint8 or not len(x):
        return made
    x = to_maps(x, made.axes)
    if made.size and x.shape[1:3] != made.size:
        shape = "x".join(map(str, x.shape[1:3]))
        raise DataError(f"the samples have maps of {shape}, but the net takes {'x'.join(map(str, made.size))}")
    as_it_is = replace(made, divisor=1.0, black=0.0, white=1.0)
    if made.mean:  # measurements, which may be of any size
        return as_it_is
    found = ends_of(x)
    divisor, _ = divisor_of(x, found)
    if divisor is not None:
        return replace(made, divisor=divisor)
    check_range(what, found, made.black, made.white)
    return as_it_is
