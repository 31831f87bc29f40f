"""Folders by number, `gradledger-out/run-1`, `run-2`, …: a new one never takes the place of another one.

Evaluations have numbers of their own, `evaluate-1`, …, beside the run that they judge.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from refimpl.storage.files import InputError, read_json

from . import run_state
from .errors import Malformed
from .run_folder import COMMITTED, DIVERGED, RECORD, RESUME

BASE = Path("gradledger-out")
RUN, EVALUATION = "run", "evaluate"  # what numbered folders are called
HINT = "it is the record of gradledger adapt; move the folder away"


@contextlib.contextmanager
def run_folder(output: Path | None, resume: bool, base: Path = BASE) -> Iterator[Path]:
    """The folder of a run: `output` where it is given, else a new number, or of --resume the latest interrupted run.

    As `numbered_folder`; Malformed also where no run was interrupted.
    """
    with numbered_folder(interrupted(base) if resume and output is None else output, base) as folder:
        yield folder


@contextlib.contextmanager
def numbered_folder(output: Path | None, base: Path, name: str = RUN) -> Iterator[Path]:
    """`output` where it is given, else a new numbered folder in `base`.

    A new one is there while this is entered, and gone afterwards where nothing was written into it. Malformed where the
    folder cannot be made.
    """
    if output is not None:
        yield output
        return
    made = not base.is_dir()
    folder = new(base, name)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()
            if made:
                base.rmdir()


def evaluations(file: Path) -> Path:
    """Where evaluations of a file of weights belong: in the folder of its run, of another file among all runs."""
    folder = file if file.is_dir() else file.parent
    return folder if any((folder / name).exists() for name in (RECORD, RESUME, DIVERGED)) else BASE


def numbers(base: Path, name: str = RUN) -> dict[int, Path]:
    """The numbered folders, in their order."""
    called = re.compile(rf"{name}-([1-9]\d{{0,8}})", re.ASCII)
    found = {int(m[1]): p for p in base.iterdir() if (m := called.fullmatch(p.name))} if base.is_dir() else {}
    return dict(sorted(found.items()))


def new(base: Path, name: str = RUN) -> Path:
    """Make the folder of the number after the last one; another process that does so at once gets another number."""
    number = max(numbers(base, name), default=0) + 1
    while True:
        folder = base / f"{name}-{number}"
        try:
            base.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileExistsError:
            if not base.is_dir():
                raise Malformed(f"{base} is no folder: move it away, or choose one with --output") from None
            number += 1
        except OSError as e:
            raise Malformed(f"the folder {folder} cannot be made ({e.strerror}): choose one with --output") from None


def interrupted(base: Path) -> Path:
    """The latest run that was interrupted and is not at work; Malformed where there is none."""
    for folder in (*reversed(numbers(base).values()), base):
        if state(folder) == "interrupted":
            return folder
    raise Malformed(f"{base} holds no interrupted run to resume: leave --resume out to start one, or name its --output")


def state(folder: Path) -> str | None:
    """What became of the run in a folder: running, interrupted, finished, worse, diverged; None where there is none."""
    if (folder / RESUME).exists() or (folder / COMMITTED).is_dir():
        return "running" if locked(folder) else "interrupted"
    if (folder / RECORD).exists():
        return "finished" if _record(folder).get("ok") else "worse"
    return "diverged" if (folder / DIVERGED).exists() else None


def locked(folder: Path) -> bool:
    """Does a process write into a run's folder?"""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


def _record(folder: Path) -> dict:
    """The record of a finished run; InputError where it is damaged."""
    found = read_json(folder / RECORD, f"the record {folder / RECORD}", Malformed, HINT)
    if not isinstance(found, dict):
        raise Malformed(f"the record {folder / RECORD} is no JSON object: {HINT}")
    return found


def run(folder: Path) -> dict:
    """The record of `gradledger runs`: the runs of a folder, by number, then others by name.

    Malformed where there is no such folder.
    """
    if not folder.is_dir():
        raise Malformed(f"there is no folder {folder}: gradledger adapt writes its runs into {BASE}")
    known = numbers(folder)
    others = sorted(p for p in folder.iterdir() if p.is_dir() and p not in known.values())
    found = [row for p in (folder, *others, *known.values()) if (row := row_of(p))]
    return {"ok": True, "folder": str(folder), "runs": found}


def row_of(folder: Path) -> dict | None:
    """What is told of the run in a folder; None where there is none. What is damaged is told as that."""
    row = dict.fromkeys(
        ("model", "data", "method", "accuracy_before", "accuracy_after", "steps", "macs", "peak_bytes", "seconds")
    )
    try:
        if (found := state(folder)) is None:
            return None
        row |= {"folder": str(folder), "state": found}
        if found in ("finished", "worse"):
            record = _record(folder)
            shown = {key: record[key] for key in row if key in record}
            measured = record["measured"]
            costs = {key: measured[key] for key in ("macs", "peak_bytes")}
            return row | shown | costs | ({"imacs": measured["imacs"]} if "imacs" in measured else {})
        if (folder / RESUME).exists():
            saved = run_state.read(folder)
            before = saved.before
            row |= {
                "model": saved.settings.model, "data": saved.settings.data,
                "method": " + ".join(saved.settings.method),
                "steps": len(saved.step_seconds), "seconds": sum(saved.step_seconds),
                "accuracy_before": float(before.trace() / before.sum()),
            }  # fmt: skip
        return row
    except (InputError, KeyError, TypeError, json.JSONDecodeError) as e:
        return row | {"folder": str(folder), "state": "damaged", "reason": str(e)}
