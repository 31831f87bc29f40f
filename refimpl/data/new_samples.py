"""New samples for a net that is trained: read as its training samples were, and made into maps by the same function."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..storage import files
from . import contents, images, sounds, table_folder
from .arrays import read_npz
from .cells import SUFFIXES, read_cells
from .dataset import DataError
from .folders import Foreign, Problems, files_below
from .log_mel import log_mel
from .npy import read_npy
from .preprocessing import Preprocessing, PreprocessingError
from .tables import Columns, Table, samples, table_of, those_of
from .wav import read_wav, resampled


@dataclass(frozen=True)
class NewSamples:
    """Maps (n, H, W, C) as the net takes them, what each is called, and what was left out and why."""

    x: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()


def read_samples(path: Path, made: Preprocessing, skip_bad: bool = False) -> NewSamples:
    """The samples of a path, without labels, made by the preprocessing of the training samples.

    Images and sounds: a file, or a folder whose files at any depth are taken in order. Maps and windows: `x` of a
    `.npz`, a `.npy`, a table with the columns of the training one, of which a recording is cut into windows from its
    first row on, or a folder of such tables at any depth. skip_bad: leave out what cannot be read. DataError.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    with files.reading(str(path), DataError):
        if made.kind in FILES:
            return _of_files(path, made, skip_bad)
        if path.suffix == ".npz" or path.suffix == ".npy":
            return _of_array(path, made)
        if path.suffix.lower() in SUFFIXES and path.is_file() or path.is_dir() and made.columns:
            return _of_tables(path, made, skip_bad)
    raise DataError(f"{path} holds no samples for this net: a .npz with x, a .npy or a table (.csv) is needed")


def _image(path: Path, made: Preprocessing) -> Iterator[tuple[str, np.ndarray]]:
    yield str(path), images.read_image(path, made.size, made.channels or 3, made.bits)


def _sound(path: Path, made: Preprocessing) -> Iterator[tuple[str, np.ndarray]]:
    found, own = read_wav(path)
    rate = int(made.rate)
    sound = resampled(found, own, rate)
    cut = made.window and sounds.places(len(sound), made.window, made.stride or made.window)
    for place in cut or [slice(None)]:
        yield sounds.title(path, place, rate), log_mel(sound[place], rate, made.frames)[:, :, None]


# kind → is a file one, its samples and what they are called, and what a file is
FILES = {"image": (images.look, _image, "image"), "sound": (sounds.look, _sound, "clip")}


def _of_files(path: Path, made: Preprocessing, skip_bad: bool) -> NewSamples:
    look, read, noun = FILES[made.kind]
    if made.kind == "image" and made.size is None or made.kind == "sound" and not (made.rate and made.frames):
        raise PreprocessingError(
            "the preprocessing does not say how files are read: they were none that it was made of"
        )
    problems, found, names, good = Problems(str(path)), [], [], 0
    for one in files_below(path) if path.is_dir() else [path]:
        try:
            look(one)
            for name, sample in read(one, made):
                found.append(sample)
                names.append(name)
            good += 1
        except Foreign as e:
            if one == path:
                raise DataError(f"{path} {e}") from None
        except DataError as e:
            problems.add(one, reason(e, one))
    skipped = problems.tell(skip_bad, good + len(problems.found), f"{noun}s")
    if not found:
        raise DataError(f"{path} holds no {noun} that can be used")
    return NewSamples(made(np.stack(found)), tuple(names), skipped)


def reason(e: DataError, path: Path) -> str:
    """What is wrong with a file, without its name."""
    return str(e).removeprefix("the image ").removeprefix(f"{files.printable(str(path))} ")


def _of_array(path: Path, made: Preprocessing) -> NewSamples:
    if path.suffix == ".npy":
        x = read_npy(path)
    else:
        arrays, names = read_npz(path, ("x", "X", "x_test"))
        if not arrays:
            raise DataError(f"{path} has no array x: it holds {files.quoted(', '.join(names)) or 'nothing'}")
        x = next(arrays[key] for key in ("x", "X", "x_test") if key in arrays)
    if x.dtype.kind not in "uif" or not len(x):
        raise DataError(f"x of {path} must hold the numbers of at least one sample, but it is {x.dtype} {x.shape}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise DataError(f"x of {path} has a NaN or infinite value in sample {int(np.argwhere(~np.isfinite(x))[0][0])}")
    if x.ndim == len(made.axes) - 1:  # a single sample
        x = x[None]
    return NewSamples(made(x), tuple(f"sample {i}" for i in range(len(x))))


def _of_tables(path: Path, made: Preprocessing, skip_bad: bool) -> NewSamples:
    """Of a table, or of the tables below a folder in order; one whose rows are not all good gives no windows."""
    if not made.columns:
        raise DataError(f"{path} is a table, but the net was not trained on one: a .npz with x or a .npy is needed")
    problems, found, names, looked_at = Problems(str(path)), [], [], 0
    suffixes = contents.table_suffixes(path)
    for one in files_below(path) if path.is_dir() else [path]:
        try:
            if path.is_dir():
                table_folder.look(one, suffixes)
            looked_at += 1
            cells = read_cells(one)
            columns = Columns(those_of(one, cells, made.columns))
            rows = table_of(cells, columns, problems, f"{one}, " if path.is_dir() else "")
            if one == path:  # its rows are told one by one
                if problems.found and made.window is not None:
                    what, why = problems.found[0]
                    raise DataError(f"{path}, {what} {why}: no window may reach over it, repair or remove it")
                problems.tell(skip_bad, len(cells.rows), "rows")
            if len(rows.x) == len(cells.rows) or made.window is None and len(rows.x):
                maps, called = _of_rows(one, rows, made)
                found.append(maps)
                names += [f"{one.relative_to(path)}, {c}" if path.is_dir() else c for c in called]
        except Foreign:
            continue
        except DataError as e:
            if one == path:
                raise
            problems.add(one, str(e).removeprefix(f"{files.printable(str(one))} "))
    skipped = problems.tell(skip_bad, looked_at, "tables")
    if not found:
        raise DataError(f"{path} has no {'table' if path.is_dir() else 'row'} that can be used")
    return NewSamples(made(np.concatenate(found)), tuple(names), skipped)


def _of_rows(path: Path, rows: Table, made: Preprocessing) -> tuple[np.ndarray, list[str]]:
    """Samples of a table's rows, each or in windows, and what they are called; DataError where they are too few."""
    x, lines = rows.x, rows.lines
    if made.window is None:
        maps, _, _ = samples(x, made.columns, made.divisor == 255)
        return maps, [f"line {line}" for line in lines]
    first = range(0, len(x) - made.window + 1, made.stride or made.window)
    if not first:
        raise DataError(f"{path} has {len(x)} rows, and a window is {made.window} samples long")
    windows = np.stack([x[None, start : start + made.window] for start in first])
    return windows, [f"lines {lines[s]} to {lines[s + made.window - 1]}" for s in first]
