"""Recordings of measurements in a folder: a table each, in class folders or with a column of labels.

Windows of one recording share moments, so that each table is a group of its own: it trains or judges as a whole.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..storage import files
from ..storage.files import quoted
from . import groups
from .arrays import Beside
from .cells import Cells, read_cells
from .contents import OTHER_TABLES, table_suffixes
from .dataset import DataError, Dataset, SampleOrigin, plural
from .folders import Foreign, Listing, by_folders, listing, without_classes
from .preprocessing import Preprocessing
from .reading import PLAIN, ReadOptions
from .recordings import from_recording
from .splits import numbered
from .tables import APART, TIMES, Columns, Table, columns_of, numeric, table_of

NOUN = "recording"


def look(path: Path, suffixes: tuple[str, ...]) -> None:
    """Is a file a table, by its name? Foreign or DataError: no."""
    suffix = path.suffix.lower()
    if suffix in OTHER_TABLES:
        raise DataError(f"is a table that is not read ({suffix}): save it as .csv")
    if suffix not in suffixes:
        raise Foreign("is no table")


def table_folder(root: Path, seed: int = 0, reading: ReadOptions = PLAIN) -> Dataset:
    """Data set of a folder of tables, a recording each: windows of `reading.window`, else every table is a sample.

    They lie in class folders, or each has a column of labels; either may be in folders for training and test. Columns
    are those of most tables, found as in a single one (`tables.columns_of`). Whole tables judge, or whole groups of
    `reading.group`, a column or a pattern of file names (`groups`). DataError.
    """
    reading.checked_values()
    reading, suffixes = reading.as_trained(), table_suffixes(root)
    window = reading.windowed()

    def is_table(path: Path) -> None:
        look(path, suffixes)

    judged = reading.made is not None
    found = without_classes(root, is_table, NOUN, bool(reading.label)) or listing(root, is_table, NOUN, judged)
    bad: set[Path] = set()
    cells = _read(found, bad)
    same = _most(root, cells)
    by_name = reading.group if reading.group not in same.names and groups.is_pattern(reading.group or "") else None
    asked = replace(reading, group=None) if by_name else reading
    columns = columns_of(root, same, asked, bool(found.classes), several=True, grouped=bool(by_name))
    tables = _tables(found, cells, same, columns, window, bad)
    _check_rates(found, cells, TIMES if columns.clock is None else (same.names[columns.clock].lower(),), bad)
    group_of = groups.of_files(found, by_name, bad, judged) if by_name else {}
    usable = found.usable(bad, alone=window is not None)
    skipped = found.problems.tell(reading.skip_bad, len(found.files), "tables")
    if found.classes:
        usable.check_classes(root, "tables")
    if not all(usable.parts.values()):
        raise DataError(f"{root} has no table that can be used")
    if window is None:
        length = _length(root, usable, tables)
        reading = replace(reading, window=str(length), stride=str(length))
    return _dataset(root, usable, tables, same, columns, group_of, by_name, skipped, seed, reading, window is None)


def _read(found: Listing, bad: set[Path]) -> dict[Path, Cells]:
    """The cells of every file; what is no table becomes a problem, and one of `bad`."""
    cells = {}
    for path in found.files:
        try:
            cells[path] = read_cells(path)
        except DataError as e:
            found.problems.add(path, str(e).removeprefix(f"{files.printable(str(path))} "))
            bad.add(path)
    if not cells:
        found.problems.tell(False, len(found.files), "tables")
        raise DataError(f"{found.root} has no table that can be used")
    return cells


def _most(root: Path, cells: Mapping[Path, Cells]) -> Cells:
    """The columns that most tables have, with the rows of all tables that have them."""
    names = Counter(frozenset(one.names) for one in cells.values()).most_common(1)[0][0]
    having = [one for one in cells.values() if names <= {*one.names}]
    order = tuple(name for name in having[0].names if name in names)
    rows = []
    for one in having:
        place = [one.names.index(name) for name in order]
        sign = "," if one.comma else "."
        rows += [[row[j].replace(sign, ".") for j in place] for row in one.rows if len(row) == len(one.names)]
    return Cells(order, rows, [], having[0].header, False, having[0].said)


def _tables(
    found: Listing, cells: Mapping[Path, Cells], same: Cells, columns: Columns, window: int | None, bad: set[Path]
) -> dict[Path, Table]:
    """The table of every file, with the columns that are needed; what cannot be used becomes a problem."""
    tables = {}
    for path, one in cells.items():
        missing = [same.names[j] for j in columns.needed if same.names[j] not in one.names]
        if missing:
            found.problems.add(path, f"has no column {quoted(missing[0])}, which the others have")
            bad.add(path)
            continue
        label, group = (None if j is None else one.names.index(same.names[j]) for j in (columns.label, columns.group))
        clock = None if columns.clock is None else one.names.index(same.names[columns.clock])
        own = Columns([one.names.index(same.names[j]) for j in columns.used], label, group, clock)
        made = tables[path] = table_of(one, own, found.problems, f"{path}, ")
        rows = len(made.x)
        if not rows or window is None and rows < len(one.rows):  # its rows that are wrong are told
            bad.add(path)
        elif window is not None and rows < window:
            found.problems.add(path, f"has {plural(rows, 'row')}, and a window is {window} samples long")
            bad.add(path)
    return tables


def _check_rates(found: Listing, cells: Mapping[Path, Cells], clocks: tuple[str, ...], bad: set[Path]) -> None:
    """A table with more or fewer rows a second than the others, by its column of time, becomes a problem.

    clocks: what that column may be called.
    """
    steps = {}
    for path, one in cells.items():
        at = next((i for i, name in enumerate(one.names) if one.header and name.lower() in clocks), None)
        if at is not None and path not in bad:
            times = [one.number(row[at]) for row in one.rows if at < len(row)]
            between = np.diff([t for t in times if t is not None])
            if (between > 0).any():
                steps[path] = float(np.median(between[between > 0])), one.names[at]
    usual = sorted(step for step, _ in steps.values())[len(steps) // 2] if steps else 0
    for path, (step, name) in steps.items():
        if max(step, usual) > APART * min(step, usual):
            column = f"by its column {quoted(name)}"
            found.problems.add(path, f"has a row every {step:.4g} {column}, others every {usual:.4g}: another rate")
            bad.add(path)


def _length(root: Path, found: Listing, tables: Mapping[Path, Table]) -> int:
    """The rows of every table where each is a sample; DataError where they are no samples of one length."""
    lengths = {path: len(tables[path].x) for path in found.files}
    least, most = min(lengths, key=lambda path: lengths[path]), max(lengths, key=lambda path: lengths[path])
    if lengths[least] < lengths[most]:
        raise DataError(
            f"the tables of {root} have from {lengths[least]:,} rows ({least.relative_to(found.root)}) to "
            f"{lengths[most]:,} ({most.relative_to(found.root)}): --window cuts them into windows of one length, such "
            f"as --window {lengths[least]}"
        )
    for path in found.files:
        labels = tables[path].labels
        if labels is not None and len(several := np.unique(labels)) > 1:
            raise DataError(
                f"{path} has the labels {quoted(several[0])} and {quoted(several[1])}, but without --window a table is "
                "one sample: give --window"
            )
    return lengths[least]


def _dataset(
    root: Path, found: Listing, tables: Mapping[Path, Table], same: Cells, columns: Columns,
    group_of: Mapping[Path, str], by_name: str | None, skipped, seed: int, reading: ReadOptions, whole: bool,
) -> Dataset:  # fmt: skip
    """The data set of the tables. group_of: path → group by the pattern `by_name`; whole: is a table a sample?"""
    paths = found.files
    rows = [len(tables[path].x) for path in paths]
    number = np.repeat(np.arange(len(paths)), rows)
    lines = np.concatenate([tables[path].lines for path in paths])
    short = [path.relative_to(found.root).as_posix() for path in paths]
    last = {"test": 2, "val": 1 if "test" in found.parts else 2, "train": 0}
    parts = [last[part] for part, of_part in found.parts.items() for _ in of_part]
    if columns.group is not None:
        of_rows, names = numbered(np.concatenate([tables[path].groups for path in paths]))
        said = []
    else:
        of_files, names = numbered([group_of[path] for path in paths] if by_name else short)
        of_rows = of_files[number]
        said = [f"each of the {len(paths)} tables is a recording, and a group of its own"]
        if by_name:
            said = groups.told(found, group_of, by_name)
    if found.classes:
        labels, classes = np.repeat([label for of in found.parts.values() for _, label in of], rows), found.classes
    else:
        labels, classes = numeric(np.concatenate([tables[path].labels for path in paths])), None
    gaps = np.concatenate([tables[path].gaps for path in paths])

    def called(first: int, end: int) -> str:
        name = short[number[first]]
        return name if whole else f"{name}, lines {lines[first]} to {lines[end - 1]}"

    origin = SampleOrigin(
        "folder of tables", said=(*found.said, *same.said, *columns.said, *said), skipped=skipped,
        ignored=tuple(found.ignored), preprocessing=Preprocessing(columns=tuple(same.names[j] for j in columns.used)),
    )  # fmt: skip
    beside = Beside(
        groups=of_rows, group_names=names, split=by_folders(found) if found.folders else "", origin=origin,
        reading=reading,
    )  # fmt: skip
    return from_recording(
        root.resolve().name, np.concatenate([tables[path].x for path in paths]), labels, beside, classes, seed,
        str(root), number * (gaps.max() + 1) + gaps, np.repeat(parts, rows), called, whole,
    )  # fmt: skip
