"""Labels as people have them, as class numbers from 0: texts, one-hot, whole floats, from 1 or −1, with gaps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..storage.files import quoted
from .dataset import MAX_CLASSES, DataError, plural


@dataclass(frozen=True)
class Labels:
    """parts: class numbers (N,) int64 of each part; classes: their names; given: label as it was given → number; said:
    what was done, a sentence each.
    """

    parts: list[np.ndarray]
    classes: tuple[str, ...]
    given: tuple[tuple[str, int], ...]
    said: tuple[str, ...] = ()


def read_labels(
    parts: Sequence[tuple[np.ndarray, int, str, str]], classes=None, classes_what: str = "classes"
) -> Labels:
    """Class numbers of the labels of one or several parts, numbered together.

    parts: labels, the number of samples, and how messages call labels and samples. classes: names, None: the labels
    themselves. Labels with names are numbers from 0, or from 1 where the largest says so, or names. DataError.
    """
    read = [_column(np.asarray(y), samples, what, x_name) for y, samples, what, x_name in parts]
    said = tuple(dict.fromkeys(words for _, words in read if words))
    values = [y for y, _ in read]
    if len({y.dtype.kind in "US" for y in values}) > 1:
        raise DataError(f"{parts[0][2]} holds {values[0].dtype}, but {parts[-1][2]} holds {values[-1].dtype}")
    together = np.concatenate(values)
    present = np.unique(together)
    if len(present) > MAX_CLASSES:
        raise DataError(f"{parts[0][2]} has {len(present):,} different labels, and at most {MAX_CLASSES:,} are classes")
    if present.dtype.kind == "U":
        present = _in_order(present)
    if classes is not None:
        return _named(values, present, np.asarray(classes).reshape(-1), classes_what, parts[0][2], said)
    number = {value: i for i, value in enumerate(present.tolist())}
    names = tuple(map(str, number))
    if present.dtype.kind != "U" and list(number) != list(range(len(number))):
        said += (f"labels {_listed(names)} are classes 0 to {len(names) - 1}",)
    return Labels(
        [_numbered(y, number) for y in values], names, tuple(zip(names, range(len(names)), strict=True)), said
    )


def _column(y: np.ndarray, samples: int, what: str, x_name: str) -> tuple[np.ndarray, str]:
    """Labels (N,) of int64 or text, and what was done to them; DataError where they are not one for each sample."""
    said = ""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim not in (1, 2):
        raise DataError(
            f"{what} must be (N,), one label for each sample, or one-hot (N, K), but its shape is {y.shape}"
        )
    if len(y) != samples:
        raise DataError(f"{what} has {plural(len(y), 'label')}, but {x_name} has {plural(samples, 'sample')}")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "b":
        y = y.astype(np.int64)
    if y.dtype.kind not in "uifU":
        raise DataError(f"{what} holds {y.dtype}, but labels must be numbers or texts")
    if y.ndim == 2:
        return _one_hot(y, what), f"{what} is one-hot: the column of the one is the class"
    if y.dtype.kind == "U":
        y = np.char.strip(y)
        if (empty := np.flatnonzero(y == "")).size:
            raise DataError(f"{what} has an empty label at index {empty[0]}; every sample needs one")
        return y, said
    if y.dtype.kind == "f":
        wrong = np.flatnonzero(~(np.isfinite(y) & (y == np.rint(y)) & (np.abs(y) < 2**53)))
        if wrong.size:
            raise DataError(
                f"{what} has the label {y[wrong[0]]:g} at index {wrong[0]}, but labels must be whole numbers"
            )
        said = f"{what} holds floats, all of them whole numbers"
    elif y.dtype == np.uint64 and y.size and y.max() > np.iinfo(np.int64).max:
        raise DataError(f"{what} has the label {y.max()}, which is no class number")
    return y.astype(np.int64), said


def _one_hot(y: np.ndarray, what: str) -> np.ndarray:
    fits = y.dtype.kind != "U" and y.shape[1] > 0
    wrong = np.flatnonzero(~(((y == 0) | (y == 1)).all(1) & ((y == 1).sum(1) == 1))) if fits else np.array([0])
    if wrong.size:
        raise DataError(
            f"{what} is {y.shape}, but row {wrong[0]} is not one-hot: labels must be (N,), or (N, K) with one 1 a row"
        )
    return y.argmax(1)


def _in_order(present: np.ndarray) -> np.ndarray:
    """Texts in order, as numbers where all of them are whole ones."""
    whole = all(text.lstrip("+-").isascii() and text.lstrip("+-").isdigit() for text in present.tolist())
    return np.array(sorted(present.tolist(), key=int)) if whole else present


def _numbered(y: np.ndarray, number: dict) -> np.ndarray:
    values, place = np.unique(y, return_inverse=True)
    return np.array([number[value] for value in values.tolist()], np.int64)[place]


def _named(values, present, names, classes_what, what, said) -> Labels:
    """Labels of named classes: names, or numbers that say which name."""
    if len(names) > MAX_CLASSES:
        raise DataError(f"{classes_what} has {len(names):,} names, and at most {MAX_CLASSES:,} classes are known")
    names = tuple(map(str, names.tolist()))
    if present.dtype.kind == "U":
        number = {name: i for i, name in enumerate(names)}
        unknown = [value for value in present.tolist() if value not in number]
        if unknown:
            raise DataError(
                f"{what} has the label {quoted(unknown[0])!r}, which is not among the names of {classes_what}"
            )
        return Labels([_numbered(y, number) for y in values], names, tuple(number.items()), said)
    first = 1 if present.min() >= 1 and present.max() == len(names) else 0
    if present.min() < 0:
        raise DataError(f"{what} has the label {present.min()}, but labels must number the names of {classes_what}")
    if present.max() - first >= len(names):
        raise DataError(
            f"{classes_what} has {plural(len(names), 'name')}, but the labels go up to {present.max()}"
        )  # fmt: skip
    if first:
        said += (f"labels begin at 1: {len(names)} is the last of {plural(len(names), 'name')}",)
    given = tuple((str(i + first), i) for i in range(len(names)))
    return Labels([y - first for y in values], names, given, said)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])}, … {', '.join(names[-2:])}"
