"""Measurements in tables of text: a row is a window, or a moment of a long recording."""

import math
import re
from collections.abc import Container
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
EVEN, MOST = 0.5, 0.9  # steps of a clock differ from the usual one by this share of it at most, and so many of them do
JUMP = 5  # usual steps of a clock: what is longer is a gap, for rows may be a little late
UNITS = {"seconds": 1.0, "ms": 1e3, "µs": 1e6, "ns": 1e9}  # of a clock → so many are a second
APART = 1.1  # times as many rows a second: more is another rate


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are used: numbers of those with measurements, of the label's, the group's and the
    time's, None where there is none; said: why these.
    """

    used: list[int]
    label: int | None = None
    group: int | None = None
    clock: int | None = None
    said: tuple[str, ...] = ()

    @property
    def needed(self) -> list[int]:
        """All of them."""
        return [*self.used, *(c for c in (self.label, self.group) if c is not None)]


@dataclass(frozen=True)
class Table:
    """Numbers of a table: x (N, F), labels and groups (N,) as texts, None where none.

    gaps: (N,) int64, which rises where rows were left out before a row, or time jumps; lines: of the rows.
    """

    x: np.ndarray
    labels: np.ndarray | None
    groups: np.ndarray | None
    gaps: np.ndarray
    lines: list[int]


def table(path: Path, seed: int = 0, reading: ReadOptions = PLAIN) -> Dataset:
    """Data set of a table: with `reading.window` of the windows of one long recording, else a sample a row.

    Columns `ax_0, ax_1, …, ay_0, …` are a channel each in time; others are features, a channel each; whole numbers of
    0 to 255 that fill a square are a picture. The label's and the group's columns are found by name; see `columns_of`.
    Raises DataError.
    """
    reading.checked_values()
    reading, cells, problems = reading.as_trained(), read_cells(path), Problems(str(path))
    columns = columns_of(path, cells, reading)
    found = table_of(cells, columns, problems)
    skipped = problems.tell(reading.skip_bad, len(cells.rows), "rows")
    if not len(found.x):
        raise DataError(f"{path} has no row that can be used")
    labels, names = numeric(found.labels), tuple(cells.names[j] for j in columns.used)
    made = Preprocessing("window", columns=names)
    origin = SampleOrigin("table", said=(*cells.said, *columns.said), skipped=skipped, preprocessing=made)
    beside = Beside(groups=found.groups, origin=origin, reading=reading, measures=reading.values is None)
    if reading.windowed() is not None:
        return from_recording(
            path.stem, found.x, labels, beside, seed=seed, where=str(path), recording=found.gaps,
            called=lambda first, end: f"lines {found.lines[first]} to {found.lines[end - 1]}",
        )  # fmt: skip
    x, said, picture = samples(found.x, names)
    origin = replace(origin, said=(*origin.said, *said))
    measures, inner = not picture and reading.values is None, replace(reading, axes="NHWC")
    titles = {"train": [f"line {line}" for line in found.lines]}
    beside = replace(beside, origin=origin, measures=measures, reading=inner, names=titles)
    return from_arrays(path.stem, x, labels, seed=seed, where=str(path), beside=beside)


def columns_of(
    where: Path, cells: Cells, reading: ReadOptions, folders: bool = False, several: bool = False, grouped: bool = False
) -> Columns:
    """The columns of a table that are used.

    The label's column is `reading.label`, else the one of a name in LABELS, else the only one of text, else the last;
    the group's is `reading.group`, else the one of a name in GROUPS. Columns of time, of numbers of rows and of text
    are no measurements, nor is a clock of recordings (`clock_of`); those of a net that the data are to judge are.
    folders: a class is a folder, no label; several: the label's column is known by name or as the only one of text, not
    as the last; grouped: something else tells the groups. DataError.
    """
    text, said = {i for i in range(len(cells.names)) if _is_text(cells, i)}, []
    known = those_of(where, cells, reading.made.columns) if reading.made is not None else []
    label = None
    if reading.label or not folders:
        label = _label(where, cells, reading.label, text - {*known}, known, several, said)
    group = _group(where, cells, reading, label, said)
    if grouped and group is not None:
        said[-1] = f"column {quoted(cells.names[group])} is not used, for --group tells the groups"
    recorded = several or reading.windowed() is not None
    clock = clock_of(cells, {*known, *text, label, group}) if recorded else None
    used = known or [
        i
        for i in range(len(cells.names))
        if i not in (label, group) and _measures(cells, i, text, folders, i == clock, said)
    ]
    if reading.windowed() is not None and (rate := reading.checked_rate()) is not None:
        hold_rate(where, cells, {*known, *text, label, group}, clock, rate, said)
    if clock is not None and reading.windowed() is not None:
        said.append(f"no window reaches over a jump in column {quoted(cells.names[clock])}")
    if not used:
        raise DataError(f"{where} has no column of numbers beside {'the label' if label is not None else 'others'}")
    return Columns(used, label, None if grouped else group, clock, tuple(said))


def those_of(where: Path, cells: Cells, names: tuple[str, ...]) -> list[int]:
    """The columns of these names; DataError where one is missing."""
    if missing := [name for name in names if name not in cells.names]:
        listed = quoted(", ".join(cells.names), 120)
        raise DataError(
            f"{where} has no column {quoted(missing[0])!r}, which the net was trained on: it has {listed}"
        )  # fmt: skip
    return [cells.names.index(name) for name in names]


def clock_of(cells: Cells, others: Container[int | None]) -> int | None:
    """The first column but `others` that tells when a row was recorded, whatever its name: it rises in even steps."""
    for column in range(len(cells.names)):
        if column not in others:
            steps = np.diff(_numbers(cells, column))
            usual = np.median(steps) if len(steps) else 0.0
            if usual > 0 and (np.abs(steps - usual) <= EVEN * usual).mean() >= MOST:
                return column
    return None


def hold_rate(
    where: Path, cells: Cells, others: Container[int | None], clock: int | None, rate: float, said: list[str]
) -> None:  # fmt: skip
    """Hold samples a second against the columns but `others` that are called as a time is, else against the `clock`.

    DataError where the former contradict them; what is a clock only by its steps may be none, so that it is said.
    """
    named = [i for i, name in enumerate(cells.names) if cells.header and name.lower() in TIMES and i not in others]
    for column in named or ([] if clock is None else [clock]):
        if (wrong := _contradiction(cells, column, rate)) is None:
            continue
        if named:
            raise DataError(
                f"{where} {wrong}: give the rate that it has, or --window and --stride in samples and no --rate"
            )
        said.append(f"the table {wrong}: if that column is a clock, windows are not as long as they should be")


def _contradiction(cells: Cells, column: int, rate: float) -> str | None:
    """How a clock contradicts samples a second, in words; None where it does not, or where it tells no rate.

    Its unit is its name, else what fits best. It tells none where it counts rows, does not rise, or stands still
    for several of them. Its step is the mean of steps up to JUMP usual ones, since a clock of whole ms makes some of 1
    and some of 2, or of those up to 1 + EVEN, since rows may be missing, or a folder hold a table of another rate.
    """
    steps, name = np.diff(_numbers(cells, column)), cells.names[column]
    usual = np.median(steps) if len(steps) else 0.0
    if usual <= 0 or (steps >= 0).mean() < MOST:
        return None
    means = [float(steps[(steps >= 0) & (steps <= most * usual)].mean()) for most in (JUMP, 1 + EVEN)]
    units = {name.lower(): UNITS[name.lower()]} if name.lower() in UNITS else UNITS
    off, unit, step = min((abs(math.log(of / m / rate)), u, m) for u, of in units.items() for m in means if m)
    if off <= math.log(APART) or step == 1 and units is UNITS:
        return None
    every = f"has a row every {step:.4g} by its column {quoted(name)}"
    return f"{every}, {units[unit] / step:.4g} a second if these are {unit}, but the rate is {rate:g}"


def _numbers(cells: Cells, column: int) -> np.ndarray:
    """The numbers in a column, float64; cells without one are left out."""
    there = (cells.number(row[column]) for row in cells.rows if column < len(row))
    return np.array([number for number in there if number is not None], float)


def table_of(cells: Cells, columns: Columns, problems: Problems, at: str = "") -> Table:
    """Numbers, labels and groups of a table; rows that are wrong enter `problems`, with their line after `at`."""
    texts = [c for c in (columns.label, columns.group) if c is not None]
    found, good = [], []
    for i, row in enumerate(cells.rows):
        numbers = [cells.number(row[j]) for j in columns.used] if len(row) == len(cells.names) else [None]
        if None in numbers or any(row[j].strip().lower() in MISSING for j in texts):
            problems.add(f"{at}line {cells.lines[i]}", _wrong(cells, row, columns))
        else:
            found.append(numbers)
            good.append(i)
    apart = np.diff(good, prepend=good[:1]) > 1
    if columns.clock is not None and len(times := _numbers(cells, columns.clock)) > 1 and good:
        now = np.array([cells.number(cells.rows[i][columns.clock]) for i in good], float)  # none becomes NaN
        steps = np.diff(now, prepend=now[:1])
        apart |= (steps < 0) | (steps > JUMP * np.median(np.diff(times)))
    gaps = np.cumsum(apart)
    of = (columns.label, columns.group)
    named = [None if c is None else np.array([cells.rows[i][c].strip() for i in good]) for c in of]
    return Table(np.array(found), *named, gaps, [cells.lines[i] for i in good])


def _wrong(cells: Cells, row: list[str], columns: Columns) -> str:
    """What is wrong with a row that cannot be used."""
    if len(row) != len(cells.names):
        return f"has {plural(len(row), 'cell')}, but the table has {len(cells.names)} columns"
    for j in columns.needed:
        cell, name = row[j].strip(), quoted(cells.names[j])
        if cell.lower() in MISSING:
            return f"has no value in column {name}"
        if j in columns.used and cells.number(cell) is None:
            return f"has {quoted(cell)!r} in column {name}, which is no finite number"
    raise AssertionError("the row can be used")


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


def _label(
    path: Path, cells: Cells, asked: str | None, text: set[int], taken: list[int], several: bool, said: list[str]
) -> int:  # fmt: skip
    if asked is not None:
        return _place(path, cells, asked, "--label")
    lower = [name.lower() for name in cells.names]
    known = LABELS[:-1] if "z" in lower else LABELS  # beside x and z, y is an axis
    found = next((lower.index(name) for name in known if name in lower and lower.index(name) not in taken), None)
    why = "by its name"
    if found is None:
        others = [i for i in text if lower[i] not in (*GROUPS, *TIMES)]
        free = [i for i in range(len(lower)) if i not in taken]
        if several and len(others) != 1:
            raise DataError(
                f"{path} holds no class folders, and its tables have no column that is known as that of labels: "
                f"--label says which of {quoted(', '.join(cells.names), 120)}, or make a folder for each class"
            )
        if not free:
            raise DataError(f"{path} has no column of labels: it has {quoted(', '.join(cells.names), 120)}")
        found, why = (others[0], "the only one of text") if len(others) == 1 else (free[-1], "the last one")
    said.append(f"labels are those of column {quoted(cells.names[found])}, {why}")
    return found


def _group(path: Path, cells: Cells, reading: ReadOptions, label: int | None, said: list[str]) -> int | None:
    if reading.group is not None:
        try:
            return _place(path, cells, reading.group, "--group")
        except DataError:
            if reading.made is None:  # what is only judged needs no groups
                raise
    for i, name in enumerate(cells.names):
        stem = re.sub(r"[\s_\-]*(id|no|number|name)$", "", name.lower())
        if cells.header and stem in GROUPS and i != label:
            said.append(f"groups are those of column {quoted(name)}, by its name")
            return i
    return None


def _measures(cells: Cells, column: int, text: set[int], folders: bool, clock: bool, said: list[str]) -> bool:
    """Does a column hold measurements? Why it does not is said. folders: is a class a folder? clock: is it the time?"""
    name = cells.names[column]
    why = ""
    if folders and name.lower() in LABELS[:-1]:
        why = "labels, but the class is the folder (--label takes the column),"
    elif column in text:
        why = "text"
    elif cells.header and name.lower() in TIMES:
        why = "time"
    elif cells.header and name.lower() in ROWS and _counts(cells, column):
        why = "numbers of rows"
    elif clock:
        why = "time or numbers of rows, by its even steps,"
    if why:
        said.append(f"column {quoted(name)!r} holds {why} and is not used")
    return not why


def _counts(cells: Cells, column: int) -> bool:
    """Does a column count the rows, and begin again with each recording?"""
    values = [cells.number(row[column]) for row in cells.rows if column < len(row)]
    counted = np.array(values, float)  # what is no number becomes NaN
    return bool(((np.diff(counted) == 1) | (counted[1:] == counted[:1])).all())


def numeric(labels: np.ndarray) -> np.ndarray:
    """Labels as numbers where all of them are."""
    try:
        found = labels.astype(np.float64)
    except ValueError:
        return labels
    if not np.isfinite(found).all():
        return labels
    return found.astype(np.int64) if (found == np.rint(found)).all() and np.abs(found).max() < 2**53 else found


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
