"""CIFAR-10 re-encoded as JPEG: a `.npz` with every image as a JPEG stream, decoded by Pillow.

`train_jpeg` (bytes,) uint8 holds the streams one after the other, image i from `train_offsets[i]` to
`train_offsets[i + 1]`, with its class in `train_labels`; `test_…` likewise. The images lost detail when they were
compressed, so this is not canonical CIFAR-10, and the data set's name says so.
"""

import io
from pathlib import Path

import numpy as np

from ..storage import files
from .arrays import read_npz
from .cifar import NAMES
from .dataset import DataError, Dataset, check_classes, check_labels
from .images import pillow
from .resized import Resized

NAME = "CIFAR-10 re-encoded as JPEG"
SIDE = 32
KEYS = tuple(f"{part}_{kind}" for part in ("train", "test") for kind in ("jpeg", "offsets", "labels"))
CROP = 4  # pixels, as arXiv 1512.03385 section 4.2 augments CIFAR-10


def is_jpeg(path: Path) -> bool:
    """Is a `.npz` such a file? DataError where it cannot be read."""
    return KEYS[0] in read_npz(path, ())[1]


def cifar_jpeg(path: Path, size: tuple[int, int] | None = None) -> Dataset:
    """Data set of such a file: `Resized` images of 32×32×3, stretched to `size` a batch at a time.

    Training draws are moved by up to four pixels and mirrored; evaluation takes the images as they are. Raises
    DataError.
    """
    arrays, _ = read_npz(path, KEYS)
    for key in KEYS:
        if key not in arrays:
            raise DataError(f"{path} has no array {key}, which CIFAR-10 as JPEG needs")
    parts = []
    for part in ("train", "test"):
        need = arrays[f"{part}_offsets"].size * SIDE * SIDE * 3
        files.check_size(need, path.stat().st_size, f"{part}_jpeg of {path}", DataError)
        images = decode(arrays[f"{part}_jpeg"], arrays[f"{part}_offsets"], f"{part}_jpeg of {path}")
        labels = check_labels(arrays[f"{part}_labels"], len(images), f"{part}_labels of {path}", f"{part}_jpeg")
        if labels.max() >= len(NAMES):
            raise DataError(f"{part}_labels of {path} has the label {labels.max()}, but CIFAR-10 has 0 to 9")
        parts += [Resized(images, size, crop=CROP if part == "train" else 0, flip=part == "train"), labels]
    check_classes(parts[1], f"train_labels of {path}")
    return Dataset(NAME, *parts, NAMES, pixels=True)


def decode(stream: np.ndarray, offsets: np.ndarray, what: str) -> np.ndarray:
    """Images (N, 32, 32, 3) uint8 of JPEG streams (bytes,) uint8, image i from offsets[i] to offsets[i + 1].

    what: how messages call the streams. DataError names an image that cannot be read.
    """
    image_module, _ = pillow()
    fits = stream.dtype == np.uint8 and stream.ndim == 1 and offsets.dtype.kind in "ui" and offsets.ndim == 1
    fits = fits and len(offsets) > 1 and 0 <= offsets[0] and offsets[-1] <= len(stream)
    if not fits or (offsets[1:] < offsets[:-1]).any():
        raise DataError(f"{what} must be bytes, cut by rising offsets from 0 to {stream.size}, one more than images")
    images = np.empty((len(offsets) - 1, SIDE, SIDE, 3), np.uint8)
    for i in range(len(images)):
        coded = io.BytesIO(stream[offsets[i] : offsets[i + 1]])
        with files.reading(f"image {i} of {what}", DataError), image_module.open(coded, formats=("JPEG",)) as image:
            shape = (image.height, image.width) + ((3,) if image.mode == "RGB" else ())
            if shape != images.shape[1:]:
                raise DataError(f"image {i} of {what} is {shape}, but CIFAR-10 has images of {images.shape[1:]}")
            images[i] = image
    return images
