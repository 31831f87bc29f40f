"""Wrist-worn accelerometer and gyroscope, seven shoulder exercises, ten people (seglearn 1.2.5, Burns et al. 2018).

140 recordings at 50 Hz: each person does each exercise with each arm. A sample is a window of 2 s, as a map of one row,
100 columns and 6 channels. The question is always about one held-out person: the net is pre-trained on the other nine
(`watch_others`), adapted on the beginning of each of the person's recordings and evaluated on the rest (`watch`).
"""

from functools import cache

import numpy as np

from .. import assets
from .dataset import DataError, Dataset, SampleOrigin
from .preprocessing import Preprocessing

SUBJECTS = range(1, 11)
RATE = 50  # Hz
WINDOW = 2 * RATE
EXERCISES = (
    "pendulum", "abduction", "forward elevation", "internal rotation", "external rotation", "trapezius extension",
    "upright row",
)  # fmt: skip
AXES = ("ax", "ay", "az", "wx", "wy", "wz")  # accelerometer (g), gyroscope (rad/s)


@cache
def recordings() -> dict[str, np.ndarray]:
    """Every recording, one after the other, read-only.

    x (244102, 6) int16, scale (6,): physical value = x·scale; recording i is x[offsets[i]:offsets[i + 1]], with its
    exercise y[i], its subject[i] (1 to 10) and its arm side[i] (0 or 1).
    """
    with np.load(assets.path("watch_int16.npz")) as file:
        arrays = {name: file[name] for name in ("x", "scale", "offsets", "y", "subject", "side")}
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def _check(subject: int, stride: int, share: float) -> None:
    if subject not in SUBJECTS:
        raise DataError(f"the watch data has subjects 1 to 10, not {subject!r}")
    if stride < 1 or not 0 <= share < 1:
        raise DataError(f"windows need a stride of at least 1 and a share from 0 to below 1, not {stride} and {share}")


def moments(subject: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each axis, (6,) float64 in units of `x`, over all people but `subject`.

    Sums of integers are exact, so the result does not depend on the order of the samples.
    """
    data = recordings()
    count, total, squares = 0, np.zeros(6, np.int64), np.zeros(6, np.int64)
    for i in np.flatnonzero(data["subject"] != subject):
        x = data["x"][data["offsets"][i] : data["offsets"][i + 1]].astype(np.int64)
        count += len(x)
        total += x.sum(axis=0)
        squares += (x * x).sum(axis=0)
    mean = total / count
    return mean, np.sqrt(squares / count - mean * mean)


def starts(chosen: np.ndarray, begin: float, end: float, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """First samples and labels of the windows that lie wholly between two fractions of each chosen recording.

    chosen: recording numbers; begin, end: fractions, of which the sample ⌊fraction · length⌋ is the border;
    stride: samples from one window to the next. Returns (N,) int64 indices into `x` and (N,) int64 labels.
    """
    data = recordings()
    first_samples, labels = [], []
    for i in chosen:
        offset, length = data["offsets"][i], data["offsets"][i + 1] - data["offsets"][i]
        first, last = int(begin * length), int(end * length) - WINDOW
        first_samples.append(offset + np.arange(first, last + 1, stride))
        labels.append(np.full(len(first_samples[-1]), data["y"][i], np.int64))
    return np.concatenate(first_samples), np.concatenate(labels)


def windows(first: np.ndarray, subject: int) -> np.ndarray:
    """The windows that begin at the samples `first`, standardised without `subject`: (N, 1, 100, 6) float32."""
    mean, deviation = moments(subject)
    x = recordings()["x"]
    out = np.empty((len(first), 1, WINDOW, 6), np.float32)
    for i, s in enumerate(first):
        out[i, 0] = x[s : s + WINDOW]
    # the physical scale of an axis cancels in (x − mean) / deviation
    out -= mean.astype(np.float32)
    out /= deviation.astype(np.float32)
    return out


def watch_split(subject: int, stride: int = 25, share: float = 0.3):
    """First samples and labels of the windows to adapt on and of those to evaluate on: two pairs as `starts` gives.

    The first `share` of each recording is for adaptation, the rest for evaluation; no window crosses the border.
    """
    _check(subject, stride, share)
    own = np.flatnonzero(recordings()["subject"] == subject)
    return starts(own, 0.0, share, stride), starts(own, share, 1.0, stride)


def watch(subject: int = 1, stride: int = 25, share: float = 0.3) -> Dataset:
    """One person's windows: the first 30 % of each recording, both arms, to adapt on; the rest to evaluate on.

    subject: 1 to 10; stride: samples between windows; share: the part of each recording to adapt on. Each axis is
    standardised with the statistics of the other nine people. DataError for another subject.
    """
    (first, y_train), (rest, y_test) = watch_split(subject, stride, share)
    return _dataset("watch", subject, first, y_train, rest, y_test, "the first %g %%" % (100 * share))


def watch_others(subject: int, stride: int = 25, held_out: float = 0.15) -> Dataset:
    """The nine other people's windows, to pre-train on; the last `held_out` of each recording is for evaluation.

    Standardised as in `watch`. With `held_out=0` all windows are for training and the evaluation set is empty.
    DataError for another subject than 1 to 10.
    """
    _check(subject, stride, held_out)
    others = np.flatnonzero(recordings()["subject"] != subject)
    first, y_train = starts(others, 0.0, 1 - held_out, stride)
    rest, y_test = starts(others, 1 - held_out, 1.0, stride)
    return _dataset("watch-others", subject, first, y_train, rest, y_test, "the first %g %%" % (100 - 100 * held_out))


def _dataset(name, subject, first, y_train, rest, y_test, part: str) -> Dataset:
    mean, deviation = (tuple(values.tolist()) for values in moments(subject))
    recording = np.searchsorted(recordings()["offsets"], first, side="right") - 1
    origin = SampleOrigin(
        "recordings of movement", f"{part} of each recording trains, the rest judges; no window crosses the border",
        preprocessing=Preprocessing("window", mean=mean, std=deviation, rate=RATE, window=WINDOW, columns=AXES),
    )  # fmt: skip
    return Dataset(
        name, windows(first, subject), y_train, windows(rest, subject), y_test, EXERCISES,
        spans=np.stack([recording, first, first + WINDOW], axis=1), origin=origin,
    )  # fmt: skip
