"""New samples as people have them: one image, a folder of images, arrays, a data set; as maps that a net takes.

They are read a batch at a time, so that a folder may hold more images than memory does.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import data
from ..data.arrays import read_npz
from ..data.cells import SUFFIXES as TABLES
from ..data.contents import kind_of
from ..data.dataset import DataError, check_finite, check_maps
from ..data.folders import Problems
from ..data.images import OTHERS, SUFFIXES, look, pillow, read_image
from ..data.new_samples import reason
from ..data.on_demand import ends
from ..data.preprocessing import Preprocessing, to_maps, with_ends
from ..data.reading import OPTIONS
from ..data.resized import as_dtype
from ..data.scale import check_range, divisor_of, ends_of
from ..storage import files

PIXEL = 255.0  # divisor of a net that was trained on pixels
ARRAYS = ("NHWC", "NCHW", "NTC", "NCT", "NHW")  # axes that arrays of samples have, by which a net's maps are known
IMAGES = (*SUFFIXES, *OTHERS)  # of files that are images, be they read or not
Batch = tuple[list[str], np.ndarray]  # what each sample is called, and maps (n, H, W, C)
Left = list[tuple[str, str]]  # what was left out, and why


def batches(
    source: str | os.PathLike | np.ndarray, made: Preprocessing, batch: int, subject=None, left: Left | None = None
) -> Iterator[Batch]:
    """The samples of a source, a batch at a time: names, and maps as the net takes them.

    source: an array, an image, a folder of images at any depth, a WAV file or a folder of them, a table with columns
    as the training one's, a `.npy`, a `.npz` with `x`, or what `data.load` takes, of which it is the test samples
    (`subject` as there). left: a list for files and rows that cannot be used, and why; without it they are refused.
    DataError where it is none of these or does not fit, TypeError for another type.
    """
    if isinstance(source, np.ndarray):
        return _of_array(source, made, batch, "sample", "the array")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"samples must be a NumPy array, a path or a data set, got {type(source).__name__}: np.asarray makes an "
            "array of an image in RGB, np.stack of several arrays"
        )
    path, name = Path(source), str(source)
    if name in data.NAMES or not path.exists():
        return _of_data_set(name, made, batch, subject)
    if made.kind == "sound" and path.suffix != ".npz" or path.suffix.lower() in TABLES or _tables(path, made):
        return _of_files(path, made, batch, left)
    if path.is_dir() and (images := below(path)):
        return _of_images(images, path, made, batch, left)
    if path.suffix.lower() in IMAGES:
        return _of_images([path], path.parent, made, batch, left)
    if path.suffix == ".npy":
        return _of_array(_read_npy(path), made, batch, path.name, name)
    if path.suffix == ".npz":
        arrays, _ = read_npz(path, ("x",))
        if "x" in arrays:
            return _of_array(arrays["x"], made, batch, path.name, f"x of {path}")
    return _of_data_set(name, made, batch, subject)


def _tables(path: Path, made: Preprocessing) -> bool:
    """Is it a folder of tables, for a net that was trained on such?"""
    return path.is_dir() and bool(made.columns) and kind_of(path) == "table"


def below(folder: Path) -> list[Path]:
    """The images of a folder at any depth, in the order of their paths, also of formats that are not read.

    Hidden files and folders are left out.
    """
    found = []
    for at, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [Path(at) / n for n in names if Path(n).suffix.lower() in IMAGES and not n.startswith(".")]
    return sorted(found)


def _of_images(paths: list[Path], root: Path, made: Preprocessing, batch: int, left: Left | None) -> Iterator[Batch]:
    if made.divisor != PIXEL or made.size is None or made.channels not in (1, 3):
        shape = "x".join(map(str, (*(made.size or ("H", "W")), made.channels or "C")))
        raise DataError(f"the net was trained on maps of {shape} numbers, not on pixels: {paths[0]} is an image")
    pillow()
    for start in range(0, len(paths), batch):
        names, found = [], []
        for path in paths[start : start + batch]:
            problems = Problems(str(path))
            try:
                look(path)
                found.append(read_image(path, made.size, made.channels, made.bits))
                names.append(str(path.relative_to(root)))
            except DataError as e:
                problems.add(path, reason(e, path))
                told = problems.tell(left is not None, 1, "images")
                assert left is not None
                left += told
        if names:
            yield names, made(np.stack(found))


def _of_array(x: np.ndarray, made: Preprocessing, batch: int, name: str, what: str) -> Iterator[Batch]:
    if x.dtype.kind not in "uif":
        raise DataError(f"{what} holds {x.dtype}, but samples must be integers (uint8 for images) or floats")
    if 0 in x.shape:
        raise DataError(f"{what} is empty: its shape is {x.shape}")
    x, made = arranged(x, made)
    if len(made.axes) == 4:
        x = check_maps(x, what)
    to_maps(x, made.axes)  # of all samples, so that a message has their shape
    check_finite(x, what)
    made = fitted(x, made, what)
    for start in range(0, len(x), batch):
        maps = made(x[start : start + batch])
        yield [f"{name} {start + i}" for i in range(len(maps))], maps


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


def _read_npy(path: Path) -> np.ndarray:
    with files.opened(path, str(path), DataError) as file, files.reading(str(path), DataError, "is no .npy file"):
        size = files.size_of(file)
        files.check_size(size, size, str(path), DataError)
        return np.load(file, allow_pickle=False)


def _of_files(path: Path, made: Preprocessing, batch: int, left: Left | None) -> Iterator[Batch]:
    """What one reader of all new samples takes at once: sounds and tables."""
    found = data.read_samples(path, made, left is not None)
    if left is not None:
        left += found.skipped
    for start in range(0, len(found.x), batch):
        yield list(found.names[start : start + batch]), found.x[start : start + batch]


def _of_data_set(name: str, made: Preprocessing, batch: int, subject: int | None) -> Iterator[Batch]:
    return of_part(dataset(name, made, subject), "test", made, batch)


def of_part(d: data.Dataset, part: str, made: Preprocessing, batch: int) -> Iterator[Batch]:
    """The samples of a part of a data set, train, val or test: maps already, in which pixels get the net's values."""
    x, files_of = getattr(d, f"x_{part}"), d.origin.files.get(part, ())
    for start in range(0, 0 if x is None else len(x), batch):
        maps = np.array(x[start : start + batch], np.float32)
        if d.pixels:
            maps = as_dtype(with_ends(maps, made.black, made.white), np.dtype(made.dtype))
        names = files_of[start : start + batch] or [f"{d.name} {part} {start + i}" for i in range(len(maps))]
        yield list(names), maps


def dataset(
    name: str, made: Preprocessing, subject: int | None = None, seed: int = 0, options: Mapping | None = None
) -> data.Dataset:  # fmt: skip
    """The data set of a source, read as the training data of a net were; DataError where it cannot be used.

    options: by which those were read (`data.ReadOptions`); what else is among them does not count.
    """
    size = made.size if data.stretches(name) else None
    given = {key: value for key, value in (options or {}).items() if key in OPTIONS}
    reading = data.ReadOptions(**given, made=made)
    d = data.load(name, subject, size, made.channels if size else None, seed, reading)
    if made.size and (d.size, d.channels) != (made.size, made.channels or d.channels):
        shapes = ["x".join(map(str, s)) for s in ((*d.size, d.channels), (*made.size, made.channels))]
        raise DataError(f"{d.name} has maps of {shapes[0]}, but the net takes {shapes[1]}")
    if made.divisor == PIXEL and not made.mean and not d.pixels:
        for x in d.maps.values():
            if len(x):
                check_range(d.name, ends(x), made.black, made.white)
    return d
