"""Measurements in tables of text: a row is a window, or a moment of a long recording."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..storage.files import quoted
from .arrays import Beside, from_arrays
from .cells import LABELS, MISSING, Cells, read_cells
from .dataset import DataError, Dataset, SampleOrigin, plural
from .folders import Problems
from .preprocessing import Preprocessing
from .reading import PLAIN, ReadOptions
from .recordings import from_recording

GROUPS = ("subject", "person", "user", "participant", "recording", "session", "group", "patient")
TIMES = ("time", "timestamp", "t", "date", "datetime", "seconds", "ms")
ROWS = ("", "index", "id", "row", "unnamed: 0")
STEM = re.compile(r"(.*?)[\s_.:\-\[(]*(\d+)[\])]?", re.ASCII)
LEAST_PICTURE = 64  # pixels


@dataclass(frozen=True)
class Table:
    """Numbers of a table: x (N, F), what their columns are called, labels and groups (N,) as texts, None where none.

    gaps: (N,) int64, which rises where rows were left out before a row.
    """

    x: np.ndarray
    columns: tuple[str, ...]
    labels: np.ndarray | None
    groups: np.ndarray | None
    gaps: np.ndarray
    said: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def table(path: Path, seed: int = 0, reading: ReadOptions = PLAIN) -> Dataset:
    """Data set of a table: with `reading.window` of the windows of one long recording, else a sample a row.

    Columns `ax_0, ax_1, …, ay_0, …` are a channel each in time; others are features, a channel each; whole numbers of
    0 to 255 that fill a square are a picture. The label's and the group's columns are found by name; see `read_table`.
    Raises DataError.
    """
    reading.checked_values()
    found = read_table(path, reading)
    if reading.made is not None and reading.made.columns:
        found = arranged(found, reading.made.columns, path)
    labels = numeric(found.labels)
    made = Preprocessing("window", columns=found.columns)
    origin = SampleOrigin("table", said=found.said, skipped=found.skipped, preprocessing=made)
    beside = Beside(groups=found.groups, origin=origin, reading=reading, measures=reading.values is None)
    if reading.window is not None:
        return from_recording(
            path.stem, found.x, labels, beside, seed=seed, where=str(path), recording=found.gaps
        )  # fmt: skip
    for name in ("stride", "rate"):
        if getattr(reading, name) is not None:
            raise DataError(f"--{name} goes with --window, which cuts one long recording: give it, or leave it out")
    x, said, picture = samples(found.x, found.columns)
    origin = replace(origin, said=(*origin.said, *said))
    measures, inner = not picture and reading.values is None, replace(reading, axes="NHWC")
    beside = replace(beside, origin=origin, measures=measures, reading=inner)
    return from_arrays(path.stem, x, labels, seed=seed, where=str(path), beside=beside)


def arranged(found: Table, columns: tuple[str, ...], path: Path) -> Table:
    """A table whose columns are those of another one, in its order; DataError where one is missing."""
    missing = [name for name in columns if name not in found.columns]
    if missing:
        raise DataError(f"{path} has no column {quoted(missing[0])!r}, which the net was trained on")
    return replace(found, x=found.x[:, [found.columns.index(name) for name in columns]], columns=columns)


def read_table(path: Path, reading: ReadOptions, labelled: bool = True) -> Table:
    """Numbers, labels and groups of a table; what is wrong with rows is told at once or left out.

    The label's column is `reading.label`, else the one of a name in LABELS, else the only one of text, else the last;
    the group's is `reading.group`, else the one of a name in GROUPS. Columns of time, of numbers of rows and of text
    are no measurements. labelled: must there be labels? DataError.
    """
    cells, said = read_cells(path), []
    text = {i for i in range(len(cells.names)) if _is_text(cells, i)}
    label = _label(path, cells, reading.label, text, said) if labelled or reading.label else None
    group = _group(path, cells, reading.group, label, said)
    used = [i for i in range(len(cells.names)) if i not in (label, group) and _measures(cells, i, text, said)]
    if not used:
        raise DataError(f"{path} has no column of numbers beside {'the label' if label is not None else 'others'}")
    problems = Problems(str(path))
    good = [i for i in range(len(cells.rows)) if _check(cells, i, used, label, group, problems)]
    skipped = problems.tell(reading.skip_bad, len(cells.rows), "rows")
    if not good:
        raise DataError(f"{path} has no row that can be used")
    x = np.array([[cells.number(cells.rows[i][j]) for j in used] for i in good])
    gaps = np.cumsum(np.diff(good, prepend=good[0]) > 1)
    texts = [None if c is None else np.array([cells.rows[i][c].strip() for i in good]) for c in (label, group)]
    columns = tuple(cells.names[j] for j in used)
    return Table(x, columns, *texts, gaps, (*cells.said, *said), skipped)


def _check(cells: Cells, i: int, used: list[int], label, group, problems: Problems) -> bool:
    """Can a row be used? What is wrong with it enters `problems`, with its line."""
    row, where, count = cells.rows[i], f"line {cells.lines[i]}", len(cells.names)
    if len(row) != count:
        problems.add(where, f"has {plural(len(row), 'cell')}, but the table has {count} columns")
        return False
    for j in (*used, *(c for c in (label, group) if c is not None)):
        cell, name = row[j].strip(), quoted(cells.names[j])
        if cell.lower() in MISSING:
            problems.add(where, f"has no value in column {name}")
            return False
        if j in used and cells.number(cell) is None:
            problems.add(where, f"has {quoted(cell)!r} in column {name}, which is no finite number")
            return False
    return True


def _is_text(cells: Cells, column: int) -> bool:
    """Are most cells of a column neither numbers nor missing?"""
    there = [row[column] for row in cells.rows if column < len(row) and row[column].strip().lower() not in MISSING]
    return sum(cells.number(cell) is None for cell in there) > len(there) / 2


def _place(path: Path, cells: Cells, asked: str, flag: str) -> int:
    """The column that was asked for by name, or by number from 1."""
    if asked in cells.names:
        return cells.names.index(asked)
    lower = [name.lower() for name in cells.names]
    if asked.lower() in lower:
        return lower.index(asked.lower())
    if asked.isascii() and asked.isdigit() and 1 <= int(asked) <= len(cells.names):
        return int(asked) - 1
    listed = quoted(", ".join(cells.names), 120)
    raise DataError(f"{path} has no column {quoted(asked)!r} for {flag}: it has {listed}")


def _label(path: Path, cells: Cells, asked: str | None, text: set[int], said: list[str]) -> int:
    if asked is not None:
        return _place(path, cells, asked, "--label")
    lower = [name.lower() for name in cells.names]
    known = LABELS[:-1] if "z" in lower else LABELS  # beside x and z, y is an axis
    found = next((lower.index(name) for name in known if name in lower), None)
    why = "by its name"
    if found is None:
        others = [i for i in text if lower[i] not in (*GROUPS, *TIMES)]
        found, why = (others[0], "the only one of text") if len(others) == 1 else (len(lower) - 1, "the last one")
    said.append(f"labels are those of column {quoted(cells.names[found])}, {why}")
    return found


def _group(path: Path, cells: Cells, asked: str | None, label: int | None, said: list[str]) -> int | None:
    if asked is not None:
        return _place(path, cells, asked, "--group")
    for i, name in enumerate(cells.names):
        stem = re.sub(r"[\s_\-]*(id|no|number|name)$", "", name.lower())
        if cells.header and stem in GROUPS and i != label:
            said.append(f"groups are those of column {quoted(name)}, by its name")
            return i
    return None


def _measures(cells: Cells, column: int, text: set[int], said: list[str]) -> bool:
    """Does a column hold measurements? Why it does not is said."""
    name = cells.names[column]
    why = ""
    if column in text:
        why = "text"
    elif cells.header and name.lower() in TIMES:
        why = "time"
    elif cells.header and name.lower() in ROWS and _counts(cells, column):
        why = "numbers of rows"
    if why:
        said.append(f"column {quoted(name)!r} holds {why} and is not used")
    return not why


def _counts(cells: Cells, column: int) -> bool:
    values = [cells.number(row[column]) for row in cells.rows if column < len(row)]
    return None not in values and bool((np.diff(np.array(values)) == 1).all())


def numeric(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers where all of them are."""
    try:
        found = labels.astype(np.float64)
    except ValueError:
        return labels
    if not np.isfinite(found).all():
        return labels
    return found.astype(np.int64) if (found == np.rint(found)).all() and np.abs(found).max() < 2**53 else found


def numbers_of(
    path: Path, cells: Cells, columns: tuple[str, ...], skip_bad: bool
) -> tuple[np.ndarray, list[int], tuple[tuple[str, str], ...]]:
    """Numbers (N, F) of these columns, the line of each row, and the rows that were left out; DataError without them.

    The columns of a table without a header go by their number.
    """
    missing = [name for name in columns if name not in cells.names]
    if missing:
        listed = quoted(", ".join(cells.names), 120)
        raise DataError(f"{path} has no column {quoted(missing[0])}, which the net was trained on: it has {listed}")
    used, problems = [cells.names.index(name) for name in columns], Problems(str(path))
    good = [i for i in range(len(cells.rows)) if _check(cells, i, used, None, None, problems)]
    skipped = problems.tell(skip_bad, len(cells.rows), "rows")
    if not good:
        raise DataError(f"{path} has no row that can be used")
    x = np.array([[cells.number(cells.rows[i][j]) for j in used] for i in good])
    return x, [cells.lines[i] for i in good], skipped


def samples(
    x: np.ndarray, columns: tuple[str, ...], picture: bool | None = None
) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """Maps (N, 1, T, C) of rows (N, F), or (N, H, W, 1) of those that are pictures; what they are; are they pictures?

    picture: whether they are, where that is known.
    """
    side = round(x.shape[1] ** 0.5)
    whole = side * side == x.shape[1] >= LEAST_PICTURE and x.min() >= 0 and x.max() <= 255 and (x == np.rint(x)).all()
    if picture and not whole:
        raise DataError("a row must be a picture, whole numbers from 0 to 255, as those that the net was trained on")
    if whole and picture is not False:
        pixels = x.astype(np.uint8).reshape(-1, side, side, 1)
        return pixels, (f"a row is a picture of {side}x{side} pixels, whole numbers from 0 to 255",), True
    parts = [STEM.fullmatch(name) for name in columns]
    if all(parts):
        place = {(part[1], int(part[2])): k for k, part in enumerate(parts)}
        stems, times = list(dict.fromkeys(stem for stem, _ in place)), sorted({time for _, time in place})
        if len(times) > 1 and len(place) == len(columns) == len(stems) * len(times):
            order = [place[stem, time] for time in times for stem in stems]
            maps = x[:, order].reshape(len(x), 1, len(times), len(stems))
            names = quoted(", ".join(stem or "values" for stem in stems))
            said = f"a row is a window of {len(times)} samples of {plural(len(stems), 'channel')}: {names}"
            return maps, (said,), False
    maps = x.reshape(len(x), 1, 1, -1)
    return maps, (f"a row has {plural(len(columns), 'feature')}, a channel each",), False
