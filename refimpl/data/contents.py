"""What a folder holds, by the names of its files: images, sounds or tables."""

import os
from pathlib import Path

from . import images, sounds
from .folders import hidden

TABLES, TEXTS = (".csv", ".tsv"), (".txt",)
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".numbers")  # which are not read
KINDS = {"image": images.SUFFIXES, "sound": sounds.SUFFIXES, "table": (*TABLES, *OTHER_TABLES)}


def kind_of(root: Path) -> str | None:
    """`image`, `sound` or `table`, whatever most files below a folder are; None where there are none of them.

    Plain texts are tables where nothing else is: among other files they are notes.
    """
    counts = dict.fromkeys((*KINDS, "text"), 0)
    for at, _, names in os.walk(root):
        folder = Path(at).relative_to(root)
        for name in names:
            suffix = Path(name).suffix.lower()
            kind = next((k for k, suffixes in KINDS.items() if suffix in suffixes), "text" if suffix in TEXTS else "")
            if kind and not hidden(folder / name):
                counts[kind] += 1
    texts = counts.pop("text")
    most = max(counts, key=lambda kind: counts[kind])
    return most if counts[most] else "table" if texts else None


def table_suffixes(root: Path) -> tuple[str, ...]:
    """The suffixes of the tables below a folder: plain texts are some where there are no others."""
    found = {Path(name).suffix.lower() for _, _, names in os.walk(root) for name in names}
    return TABLES if found & {*TABLES, *OTHER_TABLES} else TEXTS
