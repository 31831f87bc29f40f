"""Data from arrays: checked, converted, split; and from a `.npz` file that holds them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..storage import files
from .dataset import (
    MAX_CLASSES,
    DataError,
    Dataset,
    check_classes,
    check_finite,
    check_labels,
    check_maps,
    plural,
    split,
    split_maps,
    to_float,
)


def from_arrays(
    name: str, x, y, x_test=None, y_test=None, classes=None, seed: int = 0, where: str = "", reuse: bool = False
) -> Dataset:
    """Data set of arrays: checked, as NHWC float32, split where there is no test set.

    x, x_test: (N, H, W, C) or (N, H, W); uint8 is scaled to 0 to 1, other dtypes keep their values. y, y_test: (N,)
    integer class numbers from 0. Without a test set a fifth of each class, drawn by `seed`, becomes one.
    classes: their names; where: how messages call the source; reuse: a float32 `x` may be reordered in place, which
    saves a copy. Raises DataError.
    """
    of = f" of {where}" if where else ""
    x = check_maps(np.asarray(x), f"x{of}")
    y = check_labels(np.asarray(y), len(x), f"y{of}")
    check_classes(y, f"y{of}")
    if (x_test is None) != (y_test is None):
        absent, present = ("x_test", "y_test") if x_test is None else ("y_test", "x_test")
        raise DataError(f"{where or 'the data'} has {present} but no {absent}; give both or neither")
    if x_test is None:
        check_finite(x, f"x{of}")
        train, test = split(y, seed, f"y{of}")
        x_train, x_test = split_maps(x, train, test, reuse)
        y_train, y_test = y[train], y[test]
    else:
        x_test = check_maps(np.asarray(x_test), f"x_test{of}")
        y_test = check_labels(np.asarray(y_test), len(x_test), f"y_test{of}", "x_test")
        if x_test.shape[1:] != x.shape[1:]:
            raise DataError(f"x_test{of} has maps of {x_test.shape[1:]}, but x has maps of {x.shape[1:]} (H, W, C)")
        if x_test.dtype != x.dtype:
            raise DataError(f"x_test{of} holds {x_test.dtype}, but x holds {x.dtype}; they would be scaled differently")
        check_finite(x, f"x{of}")
        check_finite(x_test, f"x_test{of}")
        x_train, x_test, y_train = to_float(x), to_float(x_test), y
    count = 1 + max(int(y_train.max()), int(y_test.max()))
    names = class_names(classes, count, f"classes{of}")
    return Dataset(name, x_train, y_train, x_test, y_test, names, pixels=x.dtype == np.uint8)


def class_names(classes, count: int, what: str) -> tuple[str, ...]:
    """Names of `count` classes: those given, else their numbers; DataError where too few are given."""
    if classes is None:
        return tuple(map(str, range(count)))
    classes = np.asarray(classes).reshape(-1)
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{what} has {len(classes):,} names, and at most {MAX_CLASSES:,} classes are known")
    names = tuple(map(str, classes.tolist()))
    if len(names) < count:
        raise DataError(f"{what} has {plural(len(names), 'name')}, but the labels go up to {count - 1}")
    return names


def read_npz(path: Path, keys: Iterable[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those arrays of a `.npz` that are among `keys`, and the names of all; DataError where it cannot be read."""
    with files.archive(path, str(path), DataError) as archive:
        return archive.read([key for key in keys if key in archive.members]), list(archive.members)


def npz(path: Path, seed: int = 0) -> Dataset:
    """Data set of a `.npz` with `x` and `y`, and optionally `x_test` and `y_test`, and `classes` (names).

    Shapes, dtypes and the split are as in `from_arrays`. `x_train` and `y_train` are understood too.
    """
    arrays, names = read_npz(path, ("x", "y", "x_train", "y_train", "x_test", "y_test", "classes"))
    listed = files.quoted(", ".join(names)) or "nothing"
    for key in ("x", "y"):
        if f"{key}_train" in arrays:
            arrays.setdefault(key, arrays.pop(f"{key}_train"))
        if key not in arrays:
            raise DataError(f"{path} has no array {key}: it holds {listed}, but x and y are needed")
    given = [arrays.get(key) for key in ("x", "y", "x_test", "y_test", "classes")]
    return from_arrays(path.stem, *given, seed=seed, where=str(path), reuse=True)
