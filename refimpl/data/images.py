"""Data from a folder of class folders with images, read by Pillow."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..storage import files
from . import groups
from .dataset import DataError, Dataset, SampleOrigin, plural, to_float
from .folders import Foreign, Listing, divided, listing
from .preprocessing import Preprocessing
from .reading import PLAIN, ReadOptions
from .splits import numbered

FORMATS = {  # Pillow's names and the bytes that such files begin with
    "JPEG": (b"\xff\xd8\xff",), "PNG": (b"\x89PNG\r\n\x1a\n",), "GIF": (b"GIF87a", b"GIF89a"), "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*"), "WEBP": (b"RIFF",),
}  # fmt: skip
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp")
OTHERS = (  # of images that are not read
    ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
    ".ico", ".tga", ".ppm", ".pgm", ".exr",
)  # fmt: skip
READ = "JPEG, PNG, WebP, BMP, GIF and TIFF are"
DEPTHS = (8, 10, 12, 14, 16)  # bits that the pixels of an image of 16 bits may use
MOST_PIXELS = 2**26  # of an image: 256 MiB while it is decoded


def pillow():
    """Pillow's modules Image and ImageOps; DataError where it is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise DataError("images are read by Pillow, which is not installed: pip install 'gradledger[images]'") from None
    return Image, ImageOps


def look(path: Path) -> None:
    """Is a file an image? By its name, and where that says nothing, by its first bytes. Foreign or DataError: no."""
    suffix = path.suffix.lower()
    if suffix in OTHERS:
        raise DataError(f"is an image that is not read ({suffix}; {READ}): convert it")
    if suffix in SUFFIXES:
        return
    with files.opened(path, str(path), DataError) as file:
        begin = file.read(12)
    starts = {name: begin.startswith(marks) for name, marks in FORMATS.items()}
    if not any(starts.values()) or starts["BMP"] or (starts["WEBP"] and begin[8:] != b"WEBP"):
        raise Foreign("is no image")


@dataclass(frozen=True)
class Header:
    """What an image is before its pixels are used: its largest value if it has 16 bits; has it several frames?"""

    largest: int = 0
    moves: bool = False


def header(path: Path) -> Header:
    """Of an image; the empty one where it cannot be read, which reading its pixels will tell."""
    image_module, _ = pillow()
    try:
        with files.opened(path, str(path), DataError) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = image_module.open(file, formats=tuple(FORMATS))
            deep = image.mode.startswith("I") and image.width * image.height <= MOST_PIXELS
            return Header(int(np.asarray(image).max()) if deep else 0, bool(getattr(image, "is_animated", False)))
    except Exception:  # of whatever kind: `read_image` tells it
        return Header()


def read_image(path: Path, size: tuple[int, int], channels: int, bits: int = 16) -> np.ndarray:
    """One image as (H, W, C) uint8, turned upright as its camera notes say, and stretched to `size`, bilinear.

    channels: 3 for RGB, 1 for grey; bits: that the values of an image of 16 bits use. Transparent parts are blended
    onto white; of several frames it is the first. DataError names an image that cannot be read or has more than
    MOST_PIXELS.
    """
    image_module, operations = pillow()
    mode, what = {1: "L", 3: "RGB"}[channels], f"the image {path}"
    with files.opened(path, what, DataError) as file, files.reading(what, DataError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, such as of many pixels: those that are too many are refused here
        if not files.size_of(file):
            raise DataError(f"{what} cannot be read: it is empty")
        image = image_module.open(file, formats=tuple(FORMATS))
        image.draft(mode, (max(size), max(size)))  # a large JPEG is decoded at a fraction of its size
        if image.width * image.height > MOST_PIXELS:
            raise DataError(f"{what} has {image.width}x{image.height} pixels, and at most {MOST_PIXELS:,} are decoded")
        image.load()
        operations.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # 16 bits a pixel, which conversion would clip instead of scaling
            image = image_module.fromarray(shallow(np.asarray(image), bits, what))
        elif image.mode == "F":
            raise DataError(f"{what} cannot be read: its pixels are floats, whose range is not known")
        elif image.mode == "P" or "A" in image.mode.upper() or "transparency" in image.info:
            image = image.convert("RGBA")
            image = image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
        image = image if image.mode == mode else image.convert(mode)
        image = image.resize((size[1], size[0]), image_module.Resampling.BILINEAR)
        return np.asarray(image).reshape(*size, channels)


def shallow(pixels: np.ndarray, bits: int, what: str) -> np.ndarray:
    """Pixels of more than 8 bits as uint8: their upper 8 of `bits`."""
    if pixels.min() < 0 or pixels.max() > 0xFFFF:
        raise DataError(f"{what} cannot be read: its pixels have 32 bits, whose range is not known")
    return (pixels.astype(np.uint32) >> (bits - 8)).clip(0, 255).astype(np.uint8)


def depth(largest: int) -> int:
    """Bits that hold the largest value of images of 16 bits, of those that cameras use; 16 where there are none."""
    return next((bits for bits in DEPTHS if 0 < largest < 2**bits), 16)


def image_folder(
    root: Path, size: tuple[int, int] | None, channels: int | None = None, seed: int = 0, reading: ReadOptions = PLAIN
) -> Dataset:
    """Data set of a folder of class folders with images; the classes are the folders' names in order.

    size: (H, W) to which every image is stretched; channels: 3 (default) or 1. A folder with the folders `train` and
    `test` or `val`, each of them holding the class folders, is split so (where there are all three, `val` holds the
    validation samples); any other by `seed`, a fifth of each class for the test, or whole groups of `reading.group`, a
    pattern of file names (`groups`). Values are 0 to 1. Raises DataError.
    """
    channels = 3 if channels is None else channels
    if channels not in (1, 3):
        raise DataError(f"images have C=1 (grey) or C=3 (RGB) channels, but C={channels} were asked for")
    pillow()
    judged = reading.made is not None
    found = listing(root, look, "image", judged)
    if size is None:
        raise DataError(
            f"the images of {root} need a size, rows and columns, to which they are stretched, such as --size 128x128"
        )
    heads = [header(path) for path in found.files]
    largest = max((h.largest for h in heads), default=0)
    bits = depth(largest)
    if largest:
        found.said.append(f"images of 16 bits hold values up to {largest:,}: {bits} bits are used")
    if moving := sum(h.moves for h in heads):
        found.said.append(f"{plural(moving, 'image')} of several frames: the first is used")
    images, bad = decoded(found, size, channels, bits)
    unread = set(bad)
    group_of = groups.of_files(found, reading.group, bad, judged)
    copies = found.copies(bad)
    usable = found.usable(bad, copies=copies)
    skipped = found.problems.tell(reading.skip_bad, len(heads), "images")
    usable.check_classes(root, "images")
    copies = {path: copies[path] for path in usable.files if path in copies}
    group_of = groups.joined(group_of, copies)
    parted = divided(
        usable, root, seed, groups=groups.of_part(usable, group_of), judged=judged, alike=_alike(usable, copies)
    )
    found.said += [*groups.told(usable, group_of, reading.group), *usable.told(copies)]
    place = {path: i for i, path in enumerate(p for p in found.files if p not in unread)}
    made = Preprocessing("image", divisor=255.0, channels=channels, size=tuple(size), bits=bits)
    origin = SampleOrigin(
        "folder of images", parted.how, tuple((name, i) for i, name in enumerate(usable.classes)), skipped,
        tuple(found.ignored), (0, largest or 255), tuple(found.said), preprocessing=made,
        files={part: tuple(str(path) for path, _ in samples) for part, samples in parted.parts.items()},
    )  # fmt: skip
    maps = {}
    for part, samples in parted.parts.items():
        maps[f"x_{part}"] = to_float(images, np.array([place[path] for path, _ in samples], np.int64))
        maps[f"y_{part}"] = np.array([label for _, label in samples], np.int64)
    return Dataset(
        root.resolve().name, classes=tuple(usable.classes), pixels=True, groups=parted.groups, alike=parted.alike,
        origin=origin, **maps,
    )  # fmt: skip


def _alike(found: Listing, copies: Mapping[Path, Path]) -> np.ndarray | None:
    """Numbers (N,) of the files that train, equal for copies of one; None where there are no copies."""
    if not copies:
        return None
    return numbered([str(copies.get(path, path)) for path, _ in found.parts["train"]])[0]


def decoded(
    found: Listing, size: tuple[int, int], channels: int, bits: int
) -> tuple[np.ndarray, set[Path]]:  # fmt: skip
    """The images (N, H, W, C) uint8 that can be read, in order, and the files that cannot, which become problems."""
    images, bad = np.empty((len(found.files), *size, channels), np.uint8), set()
    count = 0
    for path in found.files:
        try:
            images[count] = read_image(path, size, channels, bits)
            count += 1
        except DataError as e:
            found.problems.add(path, str(e).removeprefix(f"the image {files.printable(str(path))} "))
            bad.add(path)
    return images[:count], bad
