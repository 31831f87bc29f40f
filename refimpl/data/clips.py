"""Clips of sound in one `.npz`, as log-mel maps: such as the Free Spoken Digit Dataset.

`samples` (L,) int16 holds the clips one after the other, clip i from `offsets[i]` to `offsets[i + 1]`, with its
class in `labels` and the number of its speaker, from 0, in `speakers`; `speaker_names`, `class_names` and `rate`
(samples a second, default 8000) may be there. A map has FRAMES rows in time and a column for
each band (`log_mel`), one channel.

The question is that of the watch data: a net that knows the others' voices (`clips_of_others`) is adapted to one
speaker on the first clips of each class and evaluated on the rest.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .arrays import class_names, read_npz
from .dataset import DataError, Dataset, SampleOrigin, check_classes, check_labels
from .log_mel import BANDS, log_mel
from .preprocessing import Preprocessing

KEYS = ("samples", "offsets", "labels", "speakers")
MORE = ("speaker_names", "class_names", "rate")
RATE = 8000  # samples a second, where the file does not say
FRAMES = 64  # 1.04 s at 8 kHz
SHARE = 0.1  # of a speaker's clips of each class, to adapt on


def is_clips(path: Path) -> bool:
    """Is a `.npz` such a file? DataError where it cannot be read."""
    return {"samples", "offsets"} <= set(read_npz(path, ())[1])


def clips(path: Path, subject: int = 1, share: float = SHARE) -> Dataset:
    """One speaker's clips: the first `share` of each class, at least one, to adapt on; the rest to evaluate on.

    subject: the speaker's number, from 1. Raises DataError.
    """
    arrays = _read(path)
    own, name = _speaker(arrays, subject, path)
    labels = arrays["labels"]
    train = []
    for label in np.unique(labels[own]):
        of_class = own[labels[own] == label]
        train.append(of_class[: max(1, int(share * len(of_class)))])
    first = np.sort(np.concatenate(train))
    rest = np.setdiff1d(own, first)
    if not len(rest):
        raise DataError(
            f"{name} of {path} has {len(own)} clips, all of which are adapted on: none is left to evaluate on"
        )
    return _dataset(f"{path.stem}, {name}", arrays, first, rest)


def clips_of_others(path: Path, subject: int = 1, held_out: float = 0.1) -> Dataset:
    """Everybody else's clips, to pre-train on; the last `held_out` of each class and speaker to evaluate on."""
    arrays = _read(path)
    own, name = _speaker(arrays, subject, path)
    train, test = [], []
    for speaker in np.unique(arrays["speakers"]):
        for label in np.unique(arrays["labels"]):
            index = np.flatnonzero((arrays["speakers"] == speaker) & (arrays["labels"] == label))
            if len(index) and index[0] not in own:
                cut = len(index) - int(held_out * len(index))
                train.append(index[:cut])
                test.append(index[cut:])
    return _dataset(f"{path.stem} without {name}", arrays, np.concatenate(train), np.concatenate(test))


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays, _ = read_npz(path, (*KEYS, *MORE))
    for key in KEYS:
        if key not in arrays:
            raise DataError(f"{path} has no array {key}, which clips of sound need")
    samples, offsets = arrays["samples"], arrays["offsets"]
    fits = samples.ndim == 1 and samples.dtype.kind in "if" and offsets.ndim == 1 and offsets.dtype.kind in "ui"
    fits = fits and len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(samples)
    if not fits or (offsets[1:] <= offsets[:-1]).any():
        raise DataError(
            f"offsets of {path} must rise from 0 to the {samples.size} samples, one more than there are clips"
        )
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise DataError(
            f"samples of {path} has a NaN or infinite value at {int(np.flatnonzero(~np.isfinite(samples))[0])}"
        )
    count = len(offsets) - 1
    arrays["labels"] = check_labels(arrays["labels"], count, f"labels of {path}", "samples")
    arrays["speakers"] = check_labels(arrays["speakers"], count, f"speakers of {path}", "samples")
    check_classes(arrays["labels"], f"labels of {path}")
    rate = np.asarray(arrays.get("rate", RATE)).reshape(-1)
    if rate.dtype.kind not in "uif" or len(rate) != 1 or not 1000 <= rate[0] <= 384_000:
        raise DataError(
            f"rate of {path} must be the samples a second, from 1,000 to 384,000, but it is {rate.tolist()}"
        )
    arrays["rate"] = rate
    return arrays


def _speaker(arrays: Mapping[str, np.ndarray], subject: int, path: Path) -> tuple[np.ndarray, str]:
    """Numbers of a speaker's clips, and what to call them; DataError where there are none."""
    last = int(arrays["speakers"].max()) + 1
    own = np.flatnonzero(arrays["speakers"] == subject - 1)
    if not len(own):
        raise DataError(f"{path} has speakers 1 to {last}, not {subject}")
    names = np.asarray(arrays.get("speaker_names", ())).reshape(-1)
    return own, str(names[subject - 1]) if len(names) >= subject else f"speaker {subject}"


def _dataset(name: str, arrays: Mapping[str, np.ndarray], train: np.ndarray, test: np.ndarray) -> Dataset:
    labels, offsets, rate = arrays["labels"], arrays["offsets"], int(arrays["rate"][0])

    def maps(chosen: np.ndarray) -> np.ndarray:
        found = np.empty((len(chosen), FRAMES, BANDS, 1), np.float32)
        for i, clip in enumerate(chosen):
            found[i, :, :, 0] = log_mel(arrays["samples"][offsets[clip] : offsets[clip + 1]], rate, FRAMES)
        return found

    names = class_names(arrays.get("class_names"), int(labels.max()) + 1, "class_names")
    made = Preprocessing("sound", rate=float(rate), frames=FRAMES)
    origin = SampleOrigin("clips of sound", "the first clips of each class train, the rest judge", preprocessing=made)
    return Dataset(name, maps(train), labels[train], maps(test), labels[test], names, origin=origin)
