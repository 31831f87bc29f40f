"""A table of text as rows of cells: delimiter, header, decimal comma, and where cells are no numbers."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from ..storage import files
from .dataset import DataError

SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = (";", "\t", ",")  # a comma may be decimal beside the others
MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")
LOOKED_AT = 20  # rows by which a delimiter is told
LABELS = ("label", "labels", "class", "target", "activity", "gesture", "category", "y")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Cells:
    """Rows of a table: names of the columns, cells of each row, the line on which each row ends, and what was found.

    header: had the file names, or are they numbers from 1? comma: is the comma decimal?
    """

    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    header: bool
    comma: bool
    said: tuple[str, ...]

    def number(self, cell: str) -> float | None:
        """The number in a cell, None where there is none."""
        text = cell.strip()
        text = text.replace(",", ".") if self.comma else text
        return float(text) if NUMBER.fullmatch(text) else None


def read_cells(path: Path) -> Cells:
    """The table in a file; DataError where it is none: one column, or no rows."""
    text, encoding = _text(path)
    if not text.strip():
        raise DataError(f"{path} is empty")
    lines = text.splitlines(keepends=True)  # a cell in quotation marks may hold line ends
    used = [line for line in lines if line.strip() and not line.startswith("#")][:LOOKED_AT]
    delimiter = next((d for d in DELIMITERS if _columns(used, d) > 1), None)
    if delimiter is None:
        raise DataError(f"{path} is no table: its lines hold no cells parted by a comma, a semicolon or a tab")
    rows, numbers = [], []
    with files.reading(str(path), DataError, "is no table"):
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        for row in reader:
            if any(cell.strip() for cell in row) and not row[0].startswith("#"):
                rows.append(row)
                numbers.append(reader.line_num)
    comma = delimiter != "," and _decimal_comma(rows)
    made = Cells((), [], [], False, comma, ())
    header = _is_header(rows[0], rows[min(1, len(rows) - 1)], made.number)
    names = [cell.strip() for cell in rows[0]] if header else [str(i + 1) for i in range(len(rows[0]))]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} has two columns {files.quoted(twice)!r}: give each a name of its own")
    named = {";": "semicolons", "\t": "tabs", ",": "commas"}[delimiter]
    said = [f"cells are parted by {named}{', the decimal sign is a comma' if comma else ''}"]
    if encoding:
        said.append(f"the text is read as {encoding}")
    first = 1 if header else 0
    if len(rows) <= first:
        raise DataError(f"{path} has no rows below its header")
    return Cells(tuple(names), rows[first:], numbers[first:], header, comma, tuple(said))


def _text(path: Path) -> tuple[str, str]:
    """The text of a file, and its encoding where that is not UTF-8."""
    raw = files.read_bytes(path, str(path), DataError)
    if b"\0" in raw[:4096] and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is no table of text: it holds zero bytes")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        with files.reading(str(path), DataError, "is no table of text"):
            return raw.decode("utf-16"), "UTF-16"
    try:
        return raw.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), "Windows-1252"


def _columns(lines: list[str], delimiter: str) -> int:
    """Cells of each of the lines, 0 where they have not the same number in most of them."""
    counts = [len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)]
    most = max(set(counts), key=counts.count) if counts else 0
    return most if counts.count(most) > len(counts) / 2 else 0


def _decimal_comma(rows: list[list[str]]) -> bool:
    """Have numbers of the first rows a comma in them, and none a point?"""
    cells = [cell.strip() for row in rows[:LOOKED_AT] for cell in row]
    commas, points = (sum(bool(re.fullmatch(rf"[+-]?\d*{sign}\d+", c)) for c in cells) for sign in (",", r"\."))
    return commas > 0 == points


def _is_header(first: list[str], second: list[str], number) -> bool:
    """Are the first cells names? Where a number stands below a text, or one of them is a label's name, or where there
    is nothing below them (`second` is `first`) and none is a number.
    """
    if any(cell.strip().lower() in LABELS[:-1] for cell in first):
        return True
    if second is first:
        return not any(number(cell) is not None for cell in first)
    texts = [number(cell) is None and cell.strip().lower() not in MISSING for cell in first]
    return any(text and number(below) is not None for text, below in zip(texts, second, strict=False))
