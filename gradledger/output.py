"""The folder that a command writes into, and how paths are told."""

import os
import re
from pathlib import Path

from .errors import Malformed

PROBE = ".gradledger-probe"  # a file that is written to see whether one can be


def make_folder(output: Path) -> None:
    """Make the output folder and try to write in it; Malformed where that fails."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / PROBE
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise Malformed(f"the folder {output} cannot be written ({e.strerror}): choose one with --output") from None


def near(text: str) -> str:
    """An absolute path as it is called from here, where that is shorter; in other texts, those that lie below."""
    if os.path.isabs(text):
        return min(text, os.path.relpath(text), key=len)
    below = re.escape(os.path.join(os.getcwd(), ""))
    return re.sub(rf"(?<![^\s'\"(]){below}(?=\S)", "", text)
