"""New samples for a net that is trained, as people have them: files, folders, arrays, data sets; as maps that it takes.

They are read a batch at a time, so that a folder may hold more than memory does, as the training samples were, and made
into maps by the same function, to the same bits.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..storage import files
from . import contents, images, sounds, table_folder
from .arrays import read_npz
from .cells import SUFFIXES as TABLES
from .cells import read_cells
from .cifar import cifar_files
from .dataset import DataError, Dataset
from .folders import Foreign, Problems, files_below
from .idx import is_idx
from .loading import NAMES, load, stretches
from .log_mel import log_mel
from .new_arrays import PIXEL, Batch, of_array
from .npy import is_npy, read_npy
from .on_demand import ends
from .preprocessing import Preprocessing, PreprocessingError, with_ends
from .reading import OPTIONS, ReadOptions
from .recordings import cut
from .resized import as_dtype
from .scale import check_range
from .tables import Columns, Table, clock_of, hold_rate, samples, table_of, those_of
from .wav import read_wav, resampled

BLOCK = 256  # samples that `read_samples` takes at a time
IMAGES = (*images.SUFFIXES, *images.OTHERS)  # of files that are images, be they read or not
Sample = tuple[str, np.ndarray]  # what it is called, and its values before the preprocessing
Left = list[tuple[str, str]]  # what was left out, and why


@dataclass(frozen=True)
class NewSamples:
    """Maps (n, H, W, C) as the net takes them, what each is called, and what was left out and why."""

    x: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()


def read_samples(source: str | os.PathLike, made: Preprocessing, skip_bad: bool = False) -> NewSamples:
    """The samples of `new_batches` at once. skip_bad: leave out what cannot be read."""
    left: Left | None = [] if skip_bad else None
    found = list(new_batches(source, made, BLOCK, left=left))
    names = tuple(name for called, _ in found for name in called)
    return NewSamples(np.concatenate([maps for _, maps in found]), names, tuple(left or ()))


def new_batches(
    source: str | os.PathLike | np.ndarray, made: Preprocessing, batch: int, subject: int | None = None,
    left: Left | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """The samples of a source, without labels, a batch at a time: names, and maps as the net takes them.

    source: an array, an image, a WAV file or a table, a folder of them at any depth in order, a `.npy`, a `.npz` with
    `x`, or what `load` takes, of which it is the test samples (`subject` as there). Long sound is cut into windows as
    the training samples were, a table and an array of one recording (L, C) from the first row on.
    left: a list for files and rows that cannot be used, and why; without it they are refused, all in one sentence.
    DataError where it is none of these or does not fit, TypeError for another type.
    """
    if isinstance(source, np.ndarray):
        return of_array(source, made, batch, "sample", "the array")
    if not isinstance(source, str | os.PathLike):
        raise TypeError(
            f"samples must be a NumPy array, a path or a data set, got {type(source).__name__}: np.asarray makes an "
            "array of an image in RGB, np.stack of several arrays"
        )
    path, name = Path(source), str(source)
    if name in NAMES or not path.exists():
        return of_part(judged_set(name, made, subject), "test", made, batch)
    with files.reading(name, DataError):
        if path.suffix == ".npy":
            return of_array(read_npy(path), made, batch, path.name, name)
        if path.suffix == ".npz" and (x := _array_of(path)) is not None:
            return of_array(x, made, batch, path.name, f"x of {path}")
        kind = _kind(path, made)
    if kind is None and path.is_file() and path.suffix != ".npz":
        raise DataError(
            f"{path} holds no samples for this net: an image, a WAV file, a table (.csv), a .npz with x, a .npy or a "
            "folder of them is needed"
        )
    if kind is None:
        return of_part(judged_set(name, made, subject), "test", made, batch)
    return _made(_samples_of(path, *_reader(kind, path, made, left is not None), left), made, batch)


def _array_of(path: Path) -> np.ndarray | None:
    """The samples of a `.npz`; None where no array of it is called so."""
    arrays, _ = read_npz(path, ("x", "X", "x_test"))
    return next((arrays[key] for key in ("x", "X", "x_test") if key in arrays), None)


def _kind(path: Path, made: Preprocessing) -> str | None:
    """What the samples of a path are: image, sound or table; None where it is a data set.

    What the net was trained on decides where the files do not.
    """
    if path.is_dir():
        if is_npy(path) or is_idx(path) or cifar_files(path)[0]:
            return None
        found = contents.kind_of(path)
        if made.kind == "sound":
            return "sound"
        if found == "table":
            return "table" if made.columns else None
        return "image" if found == "image" or made.kind == "image" else None
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return None
    if made.kind in ("image", "sound") or suffix in IMAGES:
        return "sound" if made.kind == "sound" else "image"
    return "table" if suffix in TABLES else None


def _reader(kind: str, path: Path, made: Preprocessing, skip_bad: bool) -> tuple[str, Callable]:
    """What a file of a kind is called, and what reads one: (file, problems) → samples. DataError where none would fit.

    What reads one raises Foreign for a file of another kind, and DataError for one that cannot be used.
    """
    if kind == "image":
        if made.divisor != PIXEL or made.size is None or made.channels not in (1, 3):
            shape = "x".join(map(str, (*(made.size or ("H", "W")), made.channels or "C")))
            first = next((one for one in files_of(path) if one.suffix.lower() in IMAGES), path)
            raise DataError(f"the net was trained on maps of {shape} numbers, not on pixels: {first} is an image")
        images.pillow()
        return kind, partial(_image, path, made)
    if kind == "sound":
        if not (made.rate and made.frames):
            raise PreprocessingError(
                "the preprocessing does not say how files are read: they were none that it was made of"
            )
        return "clip", partial(_sound, path, made)
    if not made.columns:
        raise DataError(f"{path} is a table, but the net was not trained on one: a .npz with x or a .npy is needed")
    suffixes = contents.table_suffixes(path) if path.is_dir() else None
    return kind, partial(_table, path, made, skip_bad, suffixes)


def files_of(path: Path) -> list[Path]:
    """The files below a folder in order, hidden ones left out; a file itself."""
    return files_below(path) if path.is_dir() else [path]


def _samples_of(path: Path, noun: str, read: Callable, left: Left | None) -> Iterator[Sample]:
    """The samples of a file, or of the files below a folder in order.

    Where something cannot be used and may not be left out, the others are only looked at, and all of it is told.
    """
    problems, looked, told, none = Problems(str(path)), 0, 0, True
    with files.reading(str(path), DataError):
        for one in files_of(path):
            try:
                for sample in read(one, problems):
                    none = False
                    if left is not None or not problems.found:
                        yield sample
                looked += 1
            except Foreign as e:
                if one == path:
                    raise DataError(f"{path} {e}") from None
            except DataError as e:
                if one == path:
                    raise DataError(str(e) if files.printable(str(path)) in str(e) else f"{path} {e}") from None
                looked += 1
                problems.add(one, reason(e, one))
            if left is not None:
                left += problems.found[told:]
                told = len(problems.found)
        problems.tell(left is not None, looked, f"{noun}s")
    if none:
        raise DataError(f"{path} holds no {noun} that can be used")


def _made(found: Iterator[Sample], made: Preprocessing, batch: int) -> Iterator[Batch]:
    """Samples in batches, made into maps."""
    while taken := list(itertools.islice(found, batch)):
        yield [name for name, _ in taken], made(np.stack([values for _, values in taken]))


def _called(root: Path, path: Path) -> Path:
    """A file as it is called among those of the path that was given."""
    return Path(path.name) if path == root else path.relative_to(root)


def _image(root: Path, made: Preprocessing, path: Path, _: Problems) -> Iterator[Sample]:
    images.look(path)
    yield str(_called(root, path)), images.read_image(path, made.size, made.channels, made.bits)


def _sound(root: Path, made: Preprocessing, path: Path, _: Problems) -> Iterator[Sample]:
    sounds.look(path)
    found, own = read_wav(path)
    rate = int(made.rate)
    sound = resampled(found, own, rate)
    cut = made.window and sounds.places(len(sound), made.window, made.stride or made.window)
    for place in cut or [slice(None)]:
        yield sounds.title(_called(root, path), place, rate), log_mel(sound[place], rate, made.frames)[:, :, None]


def _table(
    root: Path, made: Preprocessing, skip_bad: bool, suffixes: tuple[str, ...] | None, path: Path, problems: Problems
) -> Iterator[Sample]:
    """Of a table; suffixes: of the tables of a folder, None of one that is alone."""
    alone = suffixes is None
    if not alone:
        table_folder.look(path, suffixes)
    cells = read_cells(path)
    used = those_of(path, cells, made.columns)
    columns = Columns(used, clock=None if made.window is None else clock_of(cells, used))
    if made.window is not None and made.rate is not None:
        hold_rate(path, cells, used, None, made.rate, [])
    rows = table_of(cells, columns, problems, "" if alone else f"{path}, ")
    if alone:  # its rows are told one by one
        problems.tell(skip_bad, len(cells.rows), "rows")
        if not len(rows.x):
            raise DataError(f"{path} has no row that can be used")
    if len(rows.x):
        maps, called = _of_rows(path, rows, made)
        yield from (
            (name if alone else f"{_called(root, path)}, {name}", m) for name, m in zip(called, maps, strict=True)
        )


def _of_rows(path: Path, rows: Table, made: Preprocessing) -> tuple[np.ndarray, list[str]]:
    """Samples of a table's rows, each or in windows, and what they are called; DataError where they are too few."""
    x, lines, window = rows.x, rows.lines, made.window
    if window is None:
        maps, _, _ = samples(x, made.columns, made.divisor == PIXEL)
        return maps, [f"line {line}" for line in lines]
    first = cut(np.zeros(len(x), np.int64), rows.gaps, window, made.stride or window).tolist()
    if not first:
        stretch = np.bincount(rows.gaps).max()
        most = f"{stretch} rows" if stretch == len(x) else f"no more than {stretch} rows without a gap"
        raise DataError(f"{path} has {most}, and a window is {window} samples long")
    maps = np.stack([x[None, start : start + window] for start in first])
    return maps, [f"lines {lines[s]} to {lines[s + window - 1]}" for s in first]


def reason(e: DataError, path: Path) -> str:
    """What is wrong with a file, without its name."""
    return str(e).removeprefix("the image ").removeprefix(f"{files.printable(str(path))} ")


def of_part(d: Dataset, part: str, made: Preprocessing, batch: int) -> Iterator[Batch]:
    """The samples of a part of a data set, train, val or test: maps already, in which pixels get the net's values."""
    x, files_of = getattr(d, f"x_{part}"), d.origin.files.get(part, ())
    for start in range(0, 0 if x is None else len(x), batch):
        maps = np.array(x[start : start + batch], np.float32)
        if d.pixels:
            maps = as_dtype(with_ends(maps, made.black, made.white), np.dtype(made.dtype))
        names = files_of[start : start + batch] or [f"{d.name} {part} {start + i}" for i in range(len(maps))]
        yield list(names), maps


def judged_set(
    name: str, made: Preprocessing, subject: int | None = None, seed: int = 0, options: Mapping | None = None
) -> Dataset:  # fmt: skip
    """The data set of a source, read as the training data of a net were; DataError where it cannot be used.

    options: by which those were read (`ReadOptions`); what else is among them does not count.
    """
    size = made.size if stretches(name) else None
    given = {key: value for key, value in (options or {}).items() if key in OPTIONS}
    reading = ReadOptions(**given, made=made)
    d = load(name, subject, size, made.channels if size else None, seed, reading)
    if made.size and (d.size, d.channels) != (made.size, made.channels or d.channels):
        shapes = ["x".join(map(str, s)) for s in ((*d.size, d.channels), (*made.size, made.channels))]
        raise DataError(f"{d.name} has maps of {shapes[0]}, but the net takes {shapes[1]}")
    if made.divisor == PIXEL and not made.mean and not d.pixels:
        for x in d.maps.values():
            if len(x):
                check_range(d.name, ends(x), made.black, made.white)
    return d
