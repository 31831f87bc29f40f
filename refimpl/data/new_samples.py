"""New samples for a net that is trained: read as its training samples were, and made into maps by the same function."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..storage import files
from . import images, sounds
from .arrays import read_npz
from .cells import SUFFIXES, read_cells
from .dataset import DataError
from .folders import Foreign, Problems, hidden
from .log_mel import log_mel
from .npy import read_npy
from .preprocessing import Preprocessing, PreprocessingError
from .tables import numbers_of, samples
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
    `.npz`, a `.npy`, or a table with the columns of the training one, of which a recording is cut into windows from
    its first row on. skip_bad: leave out what cannot be read. DataError.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    with files.reading(str(path), DataError):
        if made.kind in FILES:
            return _of_files(path, made, skip_bad)
        if path.suffix == ".npz" or path.suffix == ".npy":
            return _of_array(path, made)
        if path.suffix.lower() in SUFFIXES and path.is_file():
            return _of_table(path, made, skip_bad)
    raise DataError(f"{path} holds no samples for this net: a .npz with x, a .npy or a table (.csv) is needed")


def _image(path: Path, made: Preprocessing) -> np.ndarray:
    return images.read_image(path, made.size, made.channels or 3, made.bits)


def _sound(path: Path, made: Preprocessing) -> np.ndarray:
    found, rate = read_wav(path)
    return log_mel(resampled(found, rate, int(made.rate)), int(made.rate), made.frames)[:, :, None]


# kind → is a file one, how it is read, and what it is called
FILES = {"image": (images.look, _image, "image"), "sound": (sounds.look, _sound, "clip")}


def _of_files(path: Path, made: Preprocessing, skip_bad: bool) -> NewSamples:
    look, read, noun = FILES[made.kind]
    if made.kind == "image" and made.size is None or made.kind == "sound" and not (made.rate and made.frames):
        raise PreprocessingError(
            "the preprocessing does not say how files are read: they were none that it was made of"
        )
    problems, found, names = Problems(str(path)), [], []
    below = sorted(p for p in path.rglob("*") if not p.is_dir()) if path.is_dir() else [path]
    for one in below:
        try:
            if path.is_dir() and hidden(one.relative_to(path)):
                continue
            look(one)
            found.append(read(one, made))
            names.append(str(one))
        except Foreign as e:
            if one == path:
                raise DataError(f"{path} {e}") from None
        except DataError as e:
            problems.add(one, str(e).removeprefix("the image ").removeprefix(f"{files.printable(str(one))} "))
    skipped = problems.tell(skip_bad, len(found) + len(problems.found), f"{noun}s")
    if not found:
        raise DataError(f"{path} holds no {noun} that can be used")
    return NewSamples(made(np.stack(found)), tuple(names), skipped)


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


def _of_table(path: Path, made: Preprocessing, skip_bad: bool) -> NewSamples:
    if not made.columns:
        raise DataError(f"{path} is a table, but the net was not trained on one: a .npz with x or a .npy is needed")
    cells = read_cells(path)
    x, lines, skipped = numbers_of(path, cells, made.columns, skip_bad)
    if made.window is None:
        maps, _, _ = samples(x, made.columns, made.divisor == 255)
        return NewSamples(made(maps), tuple(f"line {line}" for line in lines), skipped)
    if skipped:
        raise DataError(f"{path}, {skipped[0][0]} {skipped[0][1]}: no window may reach over it, repair or remove it")
    stride = made.stride or made.window
    first = range(0, len(x) - made.window + 1, stride)
    if not first:
        raise DataError(f"{path} has {len(x)} rows, and a window is {made.window} samples long")
    windows = np.stack([x[None, start : start + made.window] for start in first])
    return NewSamples(made(windows), tuple(f"lines {lines[s]} to {lines[s + made.window - 1]}" for s in first))
