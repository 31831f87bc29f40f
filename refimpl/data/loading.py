"""The one way in to a data set: `load`, of an embedded name or of the user's path."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import assets
from ..storage import files
from .arrays import from_arrays
from .cells import SUFFIXES
from .cifar import cifar, cifar_files
from .cifar_jpeg import cifar_jpeg, is_jpeg
from .clips import clips, is_clips
from .contents import kind_of
from .dataset import DataError, Dataset, with_channels
from .idx import idx, is_idx
from .images import image_folder
from .npy import is_npy, npy
from .npz import npz
from .reading import PLAIN, ReadOptions
from .sounds import sound_folder
from .table_folder import table_folder
from .tables import table
from .watch_windows import watch

FASHION = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
NAMES = ("watch", "fashion-mnist")


def fashion_mnist() -> Dataset:
    """The embedded part of Fashion-MNIST (Zalando): 2,000 training and 1,000 test images, (N, 28, 28, 1), 0 to 1."""
    with np.load(assets.path("fashion_mnist_2000_1000.npz")) as file:
        arrays = [file[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    return from_arrays("fashion-mnist", *arrays, classes=FASHION)


def load(
    source: str | os.PathLike,
    subject: int | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    seed: int = 0,
    reading: ReadOptions = PLAIN,
) -> Dataset:
    """The data set of an embedded name (`watch`, `fashion-mnist`) or of the user's path.

    A path is a `.npz` with `x` and `y`, with CIFAR-10 as JPEG or with clips of sound; a table (.csv); a folder of class
    folders with images, WAV files or tables, of tables with labels, with `x.npy` and `y.npy`, of IDX files or of CIFAR
    batches. subject: the held-out
    person of `watch` (1 to 10) or speaker of the clips, default 1. size: (H, W), to which JPEG images and those of a
    folder are stretched and which other maps must have. channels: grey images are repeated to it. seed: draws the test
    set where there is none; reading: what the files do not say. Raises DataError.
    """
    if subject is not None and source != "watch" and not _has_speakers(source):
        raise DataError(f"only the watch data and clips of sound have subjects; {source} takes none")
    if source in NAMES:
        reading.allow("embedded data")
    if source == "watch":
        dataset = watch(1 if subject is None else subject)
    elif source == "fashion-mnist":
        dataset = fashion_mnist()
    else:
        dataset = _from_path(source, subject, size, channels, seed, reading)
    if size is not None and tuple(size) != dataset.size:
        raise DataError(
            f"{source} has maps of {dataset.size[0]}x{dataset.size[1]}, but {size[0]}x{size[1]} was asked for; "
            "only folders of images and CIFAR-10 as JPEG are resized"
        )
    with files.reading(str(source), DataError):  # repeated channels may take more memory than there is
        return _with_channels(dataset, channels, str(source))


def _with_channels(dataset: Dataset, channels: int | None, source: str) -> Dataset:
    """The data set with the channels that a model wants; DataError where its own cannot be repeated."""
    if channels is None or channels == dataset.channels:
        return dataset
    maps = {name: with_channels(x, channels, source) for name, x in dataset.maps.items()}
    done = replace(dataset.origin.preprocessing, channels=channels)
    return replace(dataset, **maps, origin=replace(dataset.origin, preprocessing=done))


def stretches(source: str | os.PathLike) -> bool:
    """Are the images of a source stretched to the size that is asked for?"""
    path = Path(source)
    if str(source) in NAMES or not path.exists():
        return False
    if path.is_dir():
        return not is_idx(path) and not cifar_files(path)[0] and kind_of(path) != "table"
    return path.suffix == ".npz" and is_jpeg(path)


def _has_speakers(source) -> bool:
    """Is it a file of clips of sound?"""
    path = Path(source)
    return path.suffix == ".npz" and path.is_file() and is_clips(path)


def _from_path(source, subject, size, channels, seed, reading) -> Dataset:
    path = Path(source)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise DataError(f"there is no file or folder {path}")
        near = difflib.get_close_matches(str(source), NAMES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(NAMES)}, and paths"
        raise DataError(f"there is no data set and no file or folder {str(source)!r}; {hint}")
    with files.reading(str(path), DataError):
        if path.is_dir():
            return _from_folder(path, size, channels, seed, reading)
        if path.suffix == ".npz":
            if is_clips(path):
                reading.allow("clips of sound")
                return clips(path, 1 if subject is None else subject)
            if is_jpeg(path):
                reading.allow("CIFAR-10 as JPEG")
                return cifar_jpeg(path, size)
            return npz(path, seed, reading.allow("arrays", "axes", "group", "window", "stride", "rate", "values"))
        if path.suffix.lower() in SUFFIXES:
            taken = ("skip_bad", "window", "stride", "rate", "label", "group", "values")
            return table(path, seed, reading.allow("a table", *taken))
    raise DataError(
        f"{path} is no data set: a .npz with x and y, a table (.csv), a folder of class folders with images, or a "
        "folder of IDX files or CIFAR batches is needed"
    )


def _from_folder(path, size, channels, seed, reading) -> Dataset:
    if is_idx(path):
        reading.allow("IDX files")
        return idx(path, seed)
    if cifar_files(path)[0]:
        reading.allow("CIFAR batches")
        return cifar(path)
    if is_npy(path):
        return npy(path, seed, reading.allow("arrays on the disk", "axes", "values"))
    kind = kind_of(path)
    if kind == "sound":
        taken = ("skip_bad", "window", "stride", "rate", "group")
        return sound_folder(path, seed, reading.allow("a folder of sounds", *taken))
    if kind == "table":
        taken = ("skip_bad", "window", "stride", "rate", "label", "group", "values")
        return table_folder(path, seed, reading.allow("a folder of tables", *taken))
    return image_folder(path, size, channels, seed, reading.allow("a folder of images", "skip_bad", "group"))
