"""The folder that a command writes into, and what processes of their own draw from its record."""

import subprocess
import sys
from pathlib import Path

from .errors import Malformed
from .streams import tell

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
    return _made("gradledger.plot", output / f"{name}.json", output / f"{name}.png", "the plot was not drawn")


def report(output: Path, name: str) -> str | None:
    """Make the report of the record NAME.json of `output`; None (and a sentence) where that fails."""
    return _made("validation.report", output / f"{name}.json", output / f"{name}.html", "the report was not written")


def _made(module: str, record: Path, target: Path, failure: str) -> str | None:
    """Run `python -m module RECORD TARGET`, a process of its own: the training process never holds matplotlib."""
    try:
        done = subprocess.run([sys.executable, "-m", module, str(record), str(target)], capture_output=True, text=True)
    except OSError as e:  # no process can be started: no memory, or an emulator that does not carry over
        problem = e.strerror
    else:
        if not done.returncode:
            return str(target)
        problem = (done.stderr.strip().splitlines() or ["no message"])[-1]
    tell(f"{failure} ({problem}); everything else is saved")
    return None
