"""The end of `adapt`: costs and plot of a staged run, all of it put in its place, and what a person then sees.

Costs and plot take memory of their own. So the process that trained is gone by then: `become` turns it into a small
one, in which `main` does the rest.
"""

import json
import os
import signal
import sys
from pathlib import Path

from refimpl.checkpoint import CheckpointError

from . import output
from .run_folder import DIVERGED, PLOT, RECORD, RESUME, WEIGHTS, RunFolder
from .signals import Stop, numbers
from .streams import tell


def here(folder: RunFolder, stop: Stop) -> dict:
    """Draw up costs and plot of what a folder has staged and put it in its place; the record with its files.

    What cannot be drawn costs a sentence. CheckpointError where the results cannot be put in their places.
    """
    record = folder.staged / RECORD
    output.make("ledger", record)
    drawn = output.make("plot", record)
    found = json.loads(record.read_text(encoding="utf-8"))
    stop.check()
    with stop.hold():
        folder.commit(gone=(RESUME, DIVERGED) if drawn else (RESUME, DIVERGED, PLOT))
        folder.finished = True
    return found | files(folder.path)


def files(folder: Path) -> dict:
    """Where the results of a finished run are."""
    kinds = {"weights": WEIGHTS, "record": RECORD, "plot": PLOT}
    return {"files": {k: str(folder / name) if (folder / name).exists() else None for k, name in kinds.items()}}


def done(folder: Path) -> str:
    """The end of a sentence about a run that nothing can take back."""
    return f"; the run is finished and saved in {folder}"


def become(folder: RunFolder, kept: str, as_json: bool) -> None:
    """Turn this process into one that runs `main`: same number, same streams, same lock, and none of its memory.

    kept: the end of a sentence that says what is saved where the end is cut. Returns only where the system cannot
    do that. A signal that comes meanwhile waits for `main`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    told = {"output": str(folder.path), "lock": folder.lock, "kept": kept, "as_json": as_json}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers())
    os.set_inheritable(folder.lock, True)
    try:
        os.execv(sys.executable, [sys.executable, "-m", "gradledger", "finish", json.dumps(told)])
    except OSError:
        os.set_inheritable(folder.lock, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers())


def main(told: str) -> None:
    """Do what `become` told and show the record. SystemExit with 130 where a signal cuts it, saying what is saved."""
    given = json.loads(told)
    folder = RunFolder(Path(given["output"]), given["lock"])
    os.set_inheritable(folder.lock, False)
    try:
        with Stop() as stop, folder:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers())
            record = here(folder, stop)
    except KeyboardInterrupt:
        tell(f"interrupted{done(folder.path) if folder.finished else given['kept']}")
        raise SystemExit(130) from None
    except CheckpointError as e:
        raise CheckpointError(f"{e}{given['kept']}") from None
    show(record, given["as_json"])


def show(record: dict, as_json: bool) -> None:
    """Print a finished run. SystemExit with 1 where it ended worse than it began, with 130 where a signal cuts it."""
    from . import cli

    try:
        if as_json:
            cli.emit(record)
        else:
            from . import show

            show.adapted(record)
    except KeyboardInterrupt:
        tell(f"interrupted{done(Path(record['files']['record']).parent)}")
        raise SystemExit(130) from None
    if not record["ok"]:
        tell(record["reason"])
        raise SystemExit(cli.Exit.NO)
