"""The folder that a command writes into, and what processes of their own draw from its record."""

from pathlib import Path

from . import finish
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


def plot(output: Path, name: str) -> str | None:
    """Draw the record NAME.json of `output`; None (and a sentence) where that fails."""
    return finish.make("plot", output / f"{name}.json")


def report(output: Path, name: str) -> str | None:
    """Make the report of the record NAME.json of `output`; None (and a sentence) where that fails."""
    return finish.make("report", output / f"{name}.json")
