"""The end of a command whose work is saved: what is made from its record, and what a person then sees.

Costs are drawn up with formulas, plots with matplotlib: each would come on top of what training holds in memory. So
each is a process of its own, one after the other, and the process that trained is gone by then: `become` turns it into
a small one, which starts them. What fails costs a sentence, never what is saved.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

# what is made from FOLDER/NAME.json: its module, the suffix of its file (none: it goes into the record), the failure
ACTS = {
    "ledger": ("gradledger.ledger", "", "its costs were not drawn up"),
    "plot": ("gradledger.plot", ".png", "the plot was not drawn"),
    "report": ("validation.report", ".html", "the report was not written"),
}
AFTER_ADAPT = ("ledger", "plot")


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
    print(f"gradledger: {failure} ({problem}); everything else is saved", file=sys.stderr)
    return None


def here(record: Path, files: dict[str, str], acts: tuple[str, ...] = AFTER_ADAPT) -> dict:
    """Run the acts from this process; the record as it then is, with its files."""
    made = {act: make(act, record) for act in acts}
    files = {**files, **{act: path for act, path in made.items() if ACTS[act][1]}}
    return json.loads(record.read_text(encoding="utf-8")) | {"files": files}


def told(record: Path, files: dict[str, str], as_json: bool) -> str:
    """What the command `finish` is told."""
    return json.dumps({"record": str(record), "files": files, "as_json": as_json})


def become(record: Path, files: dict[str, str], as_json: bool) -> NoReturn | None:
    """Turn this process into the one that ends `adapt`: same number, same streams, and none of its memory.

    Returns only where the system cannot do that.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, "-m", "gradledger", "finish", told(record, files, as_json)])
    except OSError:
        return None


def main(told: str) -> int:
    """Do what `told` says and print the record; the exit status: 130 where Ctrl-C cuts it, with what is saved."""
    found = json.loads(told)
    try:
        record = here(Path(found["record"]), found["files"])
    except KeyboardInterrupt:
        saved = " and ".join(found["files"].values())
        print(f"interrupted: {saved} are saved, costs and plot may be missing", file=sys.stderr)
        return 130
    if found["as_json"]:
        print(json.dumps(record, indent=1, allow_nan=False))
    else:
        from . import show

        show.adapted(record)
    return 0
