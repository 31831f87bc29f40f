"""The folder that a command writes into, and what processes of their own make from its record.

Costs are drawn up with formulas, plots with matplotlib: each would come on top of what a training process holds.
"""

import importlib
import subprocess
import sys
from pathlib import Path

from .errors import Malformed
from .streams import tell

# what is made from FOLDER/NAME.json: its module, the suffix of its file (none: it goes into the record), the failure
ACTS = {
    "ledger": ("gradledger.ledger", "", "its costs were not drawn up"),
    "plot": ("gradledger.plot", ".png", "the plot was not drawn"),
    "report": ("validation.report", ".html", "the report was not written"),
}


def make_folder(output: Path) -> None:
    """Make the output folder and try to write in it; Malformed where that fails."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".gradledger-probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise Malformed(f"the folder {output} cannot be written ({e.strerror}): choose one with --output") from None


def plot(output: Path, name: str) -> str | None:
    """Draw the record NAME.json of `output`; None (and a sentence) where that fails."""
    return make("plot", output / f"{name}.json")


def report(output: Path, name: str) -> str | None:
    """Make the report of the record NAME.json of `output`; None (and a sentence) where that fails."""
    return make("report", output / f"{name}.json")


def make(act: str, record: Path) -> str | None:
    """Run one act on a record; the file that it made, None (and a sentence) where it failed or makes none."""
    module, suffix, failure = ACTS[act]
    target = [str(record.with_suffix(suffix))] if suffix else []
    try:
        done = subprocess.run([sys.executable, "-m", module, str(record), *target], capture_output=True, text=True)
    except OSError as e:  # no process can be started: no memory, or an emulator that does not carry over
        problem = e.strerror
        if act == "ledger":  # which needs no library of its own
            importlib.import_module(module).main(str(record))
            return None
    else:
        if not done.returncode:
            return target[0] if target else None
        lines = done.stderr.strip().splitlines() or ["no message"]
        problem = "it was killed, as where memory is short" if done.returncode < 0 else lines[-1]
    tell(f"{failure} ({problem}); everything else is saved")
    return None
