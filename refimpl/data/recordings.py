"""Long recordings with a label for each sample of time, cut into windows."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .arrays import PARTS, Beside, from_arrays
from .dataset import DataError, Dataset, plural
from .labels import read_labels


def cut(y: np.ndarray, recording: np.ndarray, window: int, stride: int) -> np.ndarray:
    """First samples (M,) int64 of the windows that lie wholly in one stretch of one label and one recording.

    y, recording: (L,) int64; window, stride: samples. The first window of a stretch begins with it.
    """
    breaks = np.flatnonzero((np.diff(y) != 0) | (np.diff(recording) != 0)) + 1
    begins, ends = np.r_[0, breaks], np.r_[breaks, len(y)]
    found = [np.arange(b, e - window + 1, stride) for b, e in zip(begins, ends, strict=True)]
    return np.concatenate(found).astype(np.int64)


def from_recording(
    name: str, x: np.ndarray, y: np.ndarray, beside: Beside, classes=None, seed: int = 0, where: str = "",
    recording: np.ndarray | None = None, parts: np.ndarray | None = None,
    called: Callable[[int, int], str] | None = None, whole: bool = False,
) -> Dataset:  # fmt: skip
    """Data set of windows of a recording x (L, C) with labels y (L,), as `reading` in `beside` cuts it.

    beside.groups: (L,), None where one person made all; recording: (L,) int64, numbers of recordings that no window
    joins, default the groups. Groups judge whole; without them it is the end of each stretch of one class. parts: (L,)
    indices into PARTS, where what trains and what judges is given; called: names a window of its first sample and its
    end; whole: a window is all of a recording. DataError.
    """
    reading, of = beside.reading, f" of {where}" if where else ""
    window, stride = reading.samples("window"), reading.samples("stride")
    stride = stride or max(1, window // 2)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.dtype.kind not in "uif" or not x.size:
        raise DataError(f"x{of} must be one recording (L, C) of numbers to be cut into windows, but it is {x.shape}")
    if reading.axes is not None:
        raise DataError("--axes means nothing for one long recording, which is (L, C): leave it out")
    labels = read_labels([(y, len(x), f"y{of}", "x")], classes, f"classes{of}")
    number = np.zeros(len(x), np.int64) if beside.groups is None else np.unique(beside.groups, return_inverse=True)[1]
    if len(number) != len(x):
        raise DataError(f"groups{of} has {len(number)} values, but x has {plural(len(x), 'sample')}")
    if recording is not None:
        number = np.unique(np.stack([number, recording]), axis=1, return_inverse=True)[1].reshape(-1)
    first = cut(labels.parts[0], number, window, stride)
    if not len(first):
        raise DataError(f"{where or 'x'} has no stretch of one class that is as long as a window of {window} samples")
    names = np.array(labels.classes)[labels.parts[0][first]]
    used = np.zeros(len(x), bool)
    windows = np.empty((len(first), 1, window, x.shape[1]), x.dtype)
    for i, start in enumerate(first):
        windows[i, 0] = x[start : start + window]
        used[start : start + window] = True
    said = (f"each recording is a sample of {plural(window, 'row')}",) if whole else (
        f"{plural(len(first), 'window')} of {plural(window, 'sample')}, one every {stride}, each in one stretch of one "
        f"class; {100 * (1 - used.mean()):.1f} % of the samples lie in none",
    )  # fmt: skip
    made = replace(
        beside.origin.preprocessing, kind="window", window=window, stride=stride, rate=reading.checked_rate()
    )  # fmt: skip
    origin = replace(beside.origin, said=(*beside.origin.said, *labels.said, *said), preprocessing=made)
    spans = np.stack([number[first], first, first + window], axis=1)
    groups = None if beside.groups is None else np.asarray(beside.groups)[first]
    titles = [called(start, start + window) for start in first.tolist()] if called else []
    inner = replace(
        beside, groups=groups, spans=spans, names={"train": titles} if titles else {}, origin=origin,
        reading=replace(reading, axes="NHWC"), measures=True,
    )  # fmt: skip
    kept = [n for n in labels.classes if n in set(names.tolist())] if classes is None else list(labels.classes)
    given = windows, names, None, None
    if parts is not None and (parts != 0).any():
        index = {part: np.flatnonzero(parts[first] == i) for i, part in enumerate(PARTS)}
        _check_parts(index, parts, where, window)
        train, judges = index["train"], index["test"]
        given = windows[train], names[train], windows[judges], names[judges]
        of_parts = {part: [titles[i] for i in chosen] for part, chosen in index.items() if titles}
        inner = replace(inner, groups=None if groups is None else groups[train], spans=spans[train], names=of_parts)
        if len(index["val"]):
            inner = replace(inner, x_val=windows[index["val"]], y_val=names[index["val"]])
    return from_arrays(name, *given, classes=kept, seed=seed, where=where, reuse=True, beside=inner)


def _check_parts(index: dict[str, np.ndarray], parts: np.ndarray, where: str, window: int) -> None:
    """DataError where a part that has samples has no window."""
    for i, part in enumerate(PARTS):
        if (parts == i).any() and not len(index[part]):
            raise DataError(f"{where} has no stretch of one class in its part {part} as long as {window} samples")
