"""Pairs of `.npy` files, samples and labels, which may be larger than the memory: samples stay on the disk."""

from pathlib import Path

import numpy as np

from ..storage import files
from .arrays import Beside, from_arrays
from .dataset import DataError, Dataset, SampleOrigin
from .reading import PLAIN, ReadOptions

X, Y = ("x", "x_train"), ("y", "y_train")
MORE = ("x_val", "y_val", "x_test", "y_test", "groups", "classes")


def _named(folder: Path) -> dict[str, Path]:
    """The `.npy` files of a folder by their lower names without it."""
    return {p.stem.lower(): p for p in sorted(folder.iterdir()) if p.suffix == ".npy" and not p.name.startswith(".")}


def is_npy(folder: Path) -> bool:
    """Does a folder hold samples or labels as `.npy`?"""
    return bool({*X, *Y} & _named(folder).keys())


def read_npy(path: Path, mapped: bool = False) -> np.ndarray:
    """The array of a `.npy` of plain numbers or texts; mapped: it stays on the disk. DataError where it is none."""
    with files.opened(path, str(path), DataError) as file, files.reading(str(path), DataError, "is no .npy file"):
        size = files.size_of(file)
        if mapped:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            files.check_size(size, size, str(path), DataError)
            array = np.load(file, allow_pickle=False)
        files.plain_dtype(array.dtype, str(path), DataError)
        return array


def npy(folder: Path, seed: int = 0, reading: ReadOptions = PLAIN) -> Dataset:
    """Data set of a folder with `x.npy` and `y.npy`, or `x_train.npy` and `y_train.npy`, and what else `.npz` have.

    The samples stay on the disk and become maps a batch at a time. Raises DataError.
    """
    paths = _named(folder)
    found = {}
    for names in (X, Y):
        key = next((name for name in names if name in paths), None)
        if key is None:
            listed = files.quoted(", ".join(p.name for p in paths.values()))
            raise DataError(f"{folder} has no {names[0]}.npy: it holds {listed}, but x.npy and y.npy are needed")
        found[names[0]] = read_npy(paths[key], names is X)
    found |= {name: read_npy(paths[name], name.startswith("x")) for name in MORE if name in paths}
    beside = Beside(
        found.get("x_val"), found.get("y_val"), found.get("groups"), origin=SampleOrigin("arrays on the disk"),
        reading=reading, mapped=True,
    )  # fmt: skip
    given = [found.get(name) for name in ("x", "y", "x_test", "y_test", "classes")]
    return from_arrays(folder.resolve().name, *given, seed=seed, where=str(folder), beside=beside)
