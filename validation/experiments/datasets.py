"""Where the full data sets lie that are too large to embed: a folder beside the repository, or the user's."""

import os
from pathlib import Path

from refimpl.data import DataError

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"


def folder(name: str) -> Path:
    """The folder (or file) `name` in `GRADLEDGER_DATA`, or in `../shared/data` seen from the repository.

    DataError where there is none.
    """
    root = Path(os.environ.get("GRADLEDGER_DATA") or BESIDE)
    if not (root / name).exists():
        raise DataError(f"there is no {name} in {root}: set GRADLEDGER_DATA to the folder that holds {name}")
    return root / name


def weights(name: str) -> Path:
    """The file of pre-trained weights `name` in the folder `weights` beside the data; DataError where there is none."""
    path = Path(os.environ.get("GRADLEDGER_DATA") or BESIDE).parent / "weights" / name
    if not path.exists():
        raise DataError(f"there is no {path}: the weights must lie in a folder `weights` beside the data")
    return path
