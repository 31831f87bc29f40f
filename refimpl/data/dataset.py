"""A data set in memory, and the checks and conversions that every source of data shares.

All inputs end as NHWC float32 maps and int64 labels. Conversions work in blocks of samples and write straight into the
final array, so that no second float32 copy exists: on a small board the data may fill most of the memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import DTypeLike

from ..kernels import random
from ..storage.files import InputError, quoted
from .on_demand import OnDemand
from .pixels import Level
from .preprocessing import Preprocessing, with_ends
from .resized import as_dtype

BLOCK = 256  # samples converted or checked at a time
TEST_SHARE = 0.2  # of data that comes without a test set
MAX_CLASSES = 4096  # tables of class by class grow with its square; a larger number is mostly no class number


class DataError(InputError):
    """The data cannot be used; the message says what is wrong, where, and what would be right."""


@dataclass(frozen=True)
class SampleOrigin:
    """Where samples are from and what was done to them; `describe` tells it.

    kind: of source, in words; split: how test and validation samples were chosen, a sentence; labels: label as it was
    given → class number; skipped: bad files, rows or classes that were left out, and why; ignored: what lies there and
    is no sample, and why; values: the least and the greatest value before any scaling; said: what was decided for
    want of an option, a sentence each; group_names: of the groups of a data set; files: part, such as
    `test` → the file that each of its samples is, where it is one.
    """

    kind: str = "arrays"
    split: str = ""
    labels: tuple[tuple[str, int], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    values: tuple[float, float] | None = None
    said: tuple[str, ...] = ()
    group_names: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    preprocessing: Preprocessing = Preprocessing()


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples to train on and samples to evaluate on.

    x_train, x_test: (N, H, W, C) float32, or `OnDemand` samples that become such maps a batch at a time; y_train,
    y_test: (N,) int64, class numbers from 0; classes: their names; pixels: are values 0 to 1 pixels from 0 to 255?
    x_val, y_val: samples that neither train nor judge, None where the source has none (`validation_split` makes them).
    groups: (N,) int64, the person or recording of each training sample, None where samples are independent; spans:
    (N, 3) int64, of windows: recording, first sample, end; alike: (N,) int64, equal for training samples that are
    copies of one, None where there are no copies. origin: where they are from.
    """

    name: str
    x_train: np.ndarray | OnDemand
    y_train: np.ndarray
    x_test: np.ndarray | OnDemand
    y_test: np.ndarray
    classes: tuple[str, ...]
    pixels: bool = False
    x_val: np.ndarray | OnDemand | None = None
    y_val: np.ndarray | None = None
    groups: np.ndarray | None = None
    spans: np.ndarray | None = None
    alike: np.ndarray | None = None
    origin: SampleOrigin = SampleOrigin()

    def __post_init__(self):
        """Names come from files and folders and go to terminals and records."""
        object.__setattr__(self, "name", quoted(self.name))
        object.__setattr__(self, "classes", tuple(map(quoted, self.classes)))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns (H, W) of a map."""
        return self.x_train.shape[1:3]

    @property
    def channels(self) -> int:
        """Channels C of a map."""
        return self.x_train.shape[3]

    @property
    def maps(self) -> dict[str, np.ndarray | OnDemand]:
        """The samples of every part that there is, by the name of their field."""
        parts = {name: getattr(self, name) for name in ("x_train", "x_val", "x_test")}
        return {name: x for name, x in parts.items() if x is not None}

    def with_pixels(self, black: Level, white: Level, dtype: DTypeLike | None = None) -> "Dataset":
        """The data for a model that takes `black` for a pixel of 0 and `white` for one of 255, such as -1 and 1.

        black, white: one number, or one for each channel (`data.pixels`); dtype: of what the model takes, None is
        float32; for an integer one values are rounded, a half to the even one.

        Only what is known to be pixels changes: maps of other values are for the user to scale. The maps of this data
        set are changed in place, so call it once.
        """
        held = np.dtype(np.float32 if dtype is None else dtype)
        if not self.pixels or (black, white, held) == (0, 1, np.float32):
            return self
        maps = {
            name: x.with_pixels(black, white, held) if isinstance(x, OnDemand)
            else as_dtype(with_ends(x, black, white), held)
            for name, x in self.maps.items()
        }  # fmt: skip
        done = replace(self.origin, preprocessing=self.origin.preprocessing.with_pixels(black, white, held))
        return replace(self, **maps, pixels=False, origin=done)


def plural(n: int, noun: str) -> str:
    """`1 sample`, `3 samples`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def check_maps(x: np.ndarray, what: str) -> np.ndarray:
    """`x` as (N, H, W, C), a view; DataError where it is no array of maps. what: how messages call it."""
    if x.dtype.kind not in "uif":
        raise DataError(f"{what} holds {x.dtype}, but maps must be integers (uint8 for images) or floats")
    if x.ndim not in (3, 4):
        raise DataError(f"{what} must be (N, H, W, C) or (N, H, W), but its shape is {x.shape}")
    if 0 in x.shape:
        raise DataError(f"{what} is empty: its shape is {x.shape}")
    return x if x.ndim == 4 else x[..., None]


def check_labels(y: np.ndarray, samples: int, what: str, x_name: str = "x") -> np.ndarray:
    """`y` as (N,) int64; DataError where it is not one class number from 0 for each of the samples of `x_name`."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{what} must be (N,), one class number for each sample, but its shape is {y.shape}")
    if len(y) != samples:
        raise DataError(f"{what} has {plural(len(y), 'label')}, but {x_name} has {plural(samples, 'sample')}")
    if y.dtype.kind not in "ui":
        raise DataError(f"{what} holds {y.dtype}, but labels must be integers: class numbers from 0")
    wrong = np.flatnonzero((y < 0) | (y >= MAX_CLASSES))
    if wrong.size:
        i = wrong[0]
        raise DataError(
            f"{what} has the label {y[i]} at index {i}, but labels must number the classes from 0 to {MAX_CLASSES - 1} "
            "at most"
        )
    return y.astype(np.int64)


def check_finite(x: np.ndarray, what: str) -> None:
    """DataError at the first value of `x` (N, H, W, C) that is NaN or infinite, or would be as float32."""
    if x.dtype.kind != "f":
        return
    for start in range(0, len(x), BLOCK):
        with np.errstate(over="ignore"):
            finite = np.isfinite(x[start : start + BLOCK].astype(np.float32, copy=False))
        if not finite.all():
            n, *place = map(int, np.argwhere(~finite)[0])
            index = (start + n, *place)
            value = f"{x[index]:g}"
            value += ", which float32 cannot hold," if np.isfinite(x[index]) else ""
            raise DataError(f"{what} has {value} at index {index}; every value must be finite")


def check_classes(y: np.ndarray, what: str, classes: tuple[str, ...] | None = None) -> None:
    """DataError where the labels hold fewer than two classes; classes: what it calls them."""
    if len(present := np.unique(y)) < 2:
        only = classes[present[0]] if classes else present[0]
        raise DataError(f"{what} holds one class only ({only}); training needs samples of at least two")


def to_float(x: np.ndarray, index: np.ndarray | None = None) -> np.ndarray:
    """Float32 maps of `x` (N, H, W, C), or of its rows `index`; uint8 is divided by 255, other dtypes keep values.

    A contiguous float32 `x` without `index` is returned as it is.
    """
    if index is None and x.dtype == np.float32 and x.flags.c_contiguous:
        return x
    out = np.empty((len(x) if index is None else len(index), *x.shape[1:]), np.float32)
    for start in range(0, len(out), BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows] = x[rows if index is None else index[rows]]
    if x.dtype == np.uint8:
        out /= 255
    return out


def split(
    y: np.ndarray, seed: int, what: str, classes: tuple[str, ...] | None = None, alike: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Indices (ascending) of the training and the test samples: a fifth of each class, drawn by `seed`, for the test.

    Every class gets at least one sample on each side, else DataError, which calls it as `classes` does. alike: of
    copies (`Dataset`).
    """
    test = by_class(y, TEST_SHARE, seed, 0, alike)
    for label in np.unique(y):
        if (of_class := test[y == label]).all() or not of_class.any():
            count = len(np.unique((np.arange(len(y)) if alike is None else alike)[y == label]))
            raise DataError(
                f"{what} has {plural(count, 'sample')} of class {classes[label] if classes else label}"
                f"{'' if alike is None else ' beside copies'}; at least 2 are needed, one to train and one to test on"
                f"{'' if count < 2 else ', that are no copies of those of other classes'}"
            )
    return np.flatnonzero(~test), np.flatnonzero(test)


def by_class(y: np.ndarray, share: float, seed: int, step: int, alike: np.ndarray | None = None) -> np.ndarray:
    """(N,) bool: a share of each class, drawn by `seed`, at least one sample and not the last one.

    step: number of the first draw. alike: of copies (`Dataset`); of these the first is drawn, and the others follow it.
    """
    own, held = np.arange(len(y)), np.zeros(len(y), bool)
    _, first, inverse = np.unique(own if alike is None else alike, return_index=True, return_inverse=True)
    first = first[inverse.reshape(-1)]
    for label in np.unique(y):
        there = np.unique(first[y == label])
        members, others = there[y[there] == label], there[y[there] != label]
        count = min(max(1, round(share * len(there))), len(there) - 1) - int(held[others].sum())
        drawn = random.permutation(seed, random.SPLIT, step + int(label), len(members))[: max(0, count)]
        held[members[drawn]] = True
    for label in np.unique(y):
        if held[first[y == label]].all():  # by copies of other classes
            held[first[y == label]] = False
    return held[first]


def split_maps(x: np.ndarray, train: np.ndarray, test: np.ndarray, reuse: bool) -> tuple[np.ndarray, np.ndarray]:
    """Float32 maps of the two index sets of `split`. reuse: a float32 `x` may give its memory to the training maps."""
    x_test = to_float(x, test)
    if not (reuse and x.dtype == np.float32 and x.flags.c_contiguous and x.flags.writeable):
        return to_float(x, train), x_test
    for start in range(0, len(train), BLOCK):  # train[i] ≥ i: rows move towards the front, over rows already moved
        rows = train[start : start + BLOCK]
        x[start : start + len(rows)] = x[rows]
    return x[: len(train)], x_test


def with_channels(x: np.ndarray, channels: int | None, what: str) -> np.ndarray:
    """`x` (N, H, W, C) with the channels a model wants: one channel can be repeated, else DataError."""
    if channels is None or channels == x.shape[3]:
        return x
    if x.shape[3] == 1:
        return np.repeat(x, channels, axis=3)
    raise DataError(f"{what} has C={x.shape[3]} channels, but C={channels} were asked for; only C=1 can be repeated")
