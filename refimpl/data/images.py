"""Data from a folder of class folders with PNG or JPEG images, read by Pillow."""

import warnings
from pathlib import Path

import numpy as np

from ..storage import files
from .dataset import DataError, Dataset, Origin, plural, split

SUFFIXES = (".png", ".jpg", ".jpeg")
MOST_PIXELS = 2**26  # of an image: 256 MiB while it is decoded


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _listing(root: Path, classes: list[str]) -> tuple[list[Path], np.ndarray]:
    """Image files of the class folders of `root` and their labels; DataError at the first class without an image."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = root / name
        images = []
        if folder.is_dir():
            images = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        if not images:
            raise DataError(f"the class folder {folder} holds no PNG or JPEG image")
        paths += images
        labels += [label] * len(images)
    return paths, np.array(labels, np.int64)


def pillow():
    """Pillow's modules Image and ImageOps; DataError where it is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError("images are read by Pillow, which is not installed: pip install 'gradledger[images]'") from None
    return Image, ImageOps


def read_image(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """One image as (H, W, C) uint8, turned upright as its camera notes say, and stretched to `size`, bilinear.

    channels: 3 for RGB, 1 for grey. DataError names an image that cannot be read or has more than MOST_PIXELS.
    """
    image_module, operations = pillow()
    mode, what = {1: "L", 3: "RGB"}[channels], f"the image {path}"
    with files.opened(path, what, DataError) as file, files.reading(what, DataError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, such as of many pixels: those that are too many are refused here
        image = image_module.open(file, formats=("PNG", "JPEG"))
        image.draft(mode, (max(size), max(size)))  # a large JPEG is decoded at a fraction of its size
        if image.width * image.height > MOST_PIXELS:
            raise DataError(f"{what} has {image.width}x{image.height} pixels, and at most {MOST_PIXELS:,} are decoded")
        image.load()
        if image.mode.startswith("I"):  # 16 bits a pixel, which conversion would clip instead of scaling
            image = image_module.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
        elif image.mode == "P":  # a palette may state transparency, which goes by way of RGBA
            image = image.convert("RGBA")
        operations.exif_transpose(image, in_place=True)
        image = image if image.mode == mode else image.convert(mode)
        image = image.resize((size[1], size[0]), image_module.Resampling.BILINEAR)
        return np.asarray(image).reshape(*size, channels)


def _read_all(paths: list[Path], size: tuple[int, int], channels: int) -> np.ndarray:
    """(N, H, W, C) float32 in 0 to 1."""
    out = np.empty((len(paths), *size, channels), np.float32)
    for i, path in enumerate(paths):
        out[i] = read_image(path, size, channels)
    out /= 255
    return out


def image_folder(root: Path, size: tuple[int, int] | None, channels: int | None = None, seed: int = 0) -> Dataset:
    """Data set of a folder of class folders with images; the classes are the folders' names in order.

    size: (H, W) to which every image is stretched; channels: 3 (default) or 1. A folder with the folders `train` and
    `test` (or `val`), each of them holding the class folders, is split so; any other by `seed`, a fifth of each class
    for the test. Values are 0 to 1. Raises DataError.
    """
    channels = 3 if channels is None else channels
    if channels not in (1, 3):
        raise DataError(f"images have C=1 (grey) or C=3 (RGB) channels, but C={channels} were asked for")
    pillow()
    folders = _folders(root)
    names = [p.name for p in folders]
    test_name = next((t for t in ("test", "val") if sorted(names) == sorted(("train", t))), None)
    train_root = root / "train" if test_name else root
    classes = [p.name for p in _folders(train_root)]
    if not classes:
        raise DataError(f"{train_root} holds no class folders; it needs one folder of images for each class")
    paths, labels = _listing(train_root, classes)
    if len(classes) < 2:
        raise DataError(f"{train_root} holds {plural(1, 'class folder')} only ({classes[0]}); at least two are needed")
    if size is None:
        raise DataError(
            f"the images of {root} need a size, rows and columns, to which they are stretched, such as 128x128"
        )
    if test_name:
        extra = [p.name for p in _folders(root / test_name) if p.name not in classes]
        if extra:
            raise DataError(f"{root / test_name} has the class {extra[0]}, which {train_root} does not have")
        x_train, y_train = paths, labels
        x_test, y_test = _listing(root / test_name, classes)
    else:
        train, test = split(labels, seed, f"the folder {root}")
        x_train, y_train = [paths[i] for i in train], labels[train]
        x_test, y_test = [paths[i] for i in test], labels[test]
    name = root.resolve().name
    origin = Origin("folder of images", files={"train": tuple(map(str, x_train)), "test": tuple(map(str, x_test))})
    x_train, x_test = (_read_all(part, size, channels) for part in (x_train, x_test))
    return Dataset(name, x_train, y_train, x_test, y_test, tuple(classes), pixels=True, origin=origin)
