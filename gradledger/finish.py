"""The end of `adapt`: what is made from its record, the commit of its results, and what a person then sees.

Costs are drawn up with formulas, plots with matplotlib: each would come on top of what training holds in memory. So
each is a process of its own, one after the other, and the process that trained is gone by then: `become` turns it into
a small one, which starts them. What fails costs a sentence, never a result.
"""

import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .exits import Exit, emit
from .signals import Stop, numbers
from .streams import tell

if TYPE_CHECKING:
    from .run_folder import RunFolder

# what is made from a record: its module, the suffix of its file (none: it goes into the record), the failure
ACTS = {
    "ledger": ("gradledger.ledger", "", "its costs were not drawn up"),
    "plot": ("gradledger.plot", ".png", "the plot was not drawn"),
    "report": ("validation.report.report", ".html", "the report was not written"),
}


def make(act: str, record: Path, into: Path | None = None) -> str | None:
    """Run one act on a record; the file that it made, None (and a sentence) where it failed or makes none.

    into: that file, default beside the record, under its name.
    """
    module, suffix, failure = ACTS[act]
    target = [str(into or record.with_suffix(suffix))] if suffix else []
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


def plot(output: Path, name: str) -> str | None:
    """Draw the record NAME.json of `output`; None (and a sentence) where that fails."""
    return make("plot", output / f"{name}.json")


def report(output: Path, name: str) -> str | None:
    """Make the report of the record NAME.json of `output`; None (and a sentence) where that fails."""
    return make("report", output / f"{name}.json")


def draw_up(record: Path) -> bool:
    """Put the costs into a record, and draw its plot; is there one?"""
    make("ledger", record)
    return make("plot", record) is not None


def commit(folder: "RunFolder", drawn: bool, stop: Stop) -> dict:
    """Put what is staged in its places; the record with the files. CheckpointError where that fails."""
    from . import describe
    from .run_folder import DIVERGED, EXPORTED, PLOT, RESUME

    record = describe.complete(folder.staged)
    model = Path(record["settings"]["model"])
    made = {PLOT: drawn, EXPORTED: model.suffix == ".onnx" and exported(folder.staged, model)}
    with stop.hold():
        folder.commit(gone=(RESUME, DIVERGED, *(name for name, there in made.items() if not there)))
        folder.finished = True
    return record | there(record, folder.path)


def exported(staged: Path, model: Path) -> bool:
    """Write the adapted net as the ONNX model that it came from; is it there?"""
    from . import export

    return export.beside(staged, model)


def files(output: Path) -> dict[str, str | None]:
    """Where the results are; None for a picture that there is not."""
    from .run_folder import EXPORTED, PLOT, RECORD, WEIGHTS

    weights, record, picture, model = (output / name for name in (WEIGHTS, RECORD, PLOT, EXPORTED))
    found = {"weights": str(weights), "record": str(record), "plot": str(picture) if picture.exists() else None}
    return found | ({"onnx": str(model)} if model.exists() else {})


def there(record: dict, output: Path) -> dict:
    """What is told of a finished run beside its record: where its results are, and commands that go on from them."""
    found = files(output)
    return {"files": found, "next": commands(record["settings"], str(found["weights"]))}


def commands(settings: dict, weights: str) -> list[str]:
    """What evaluates the weights of a run of these settings on its data, and what uses them on samples, with paths as
    they are called from here.

    Left out is what the file of weights says itself: how the data are read, the seed, what pixels become.
    """
    from .output import near

    data, subject = near(settings["data"]), settings["subject"]
    rest = [] if data == "watch" or subject is None else ["--subject", f"{subject}"]
    skip = ["--skip-bad"] if settings["skip_bad"] else []
    evaluate, predict = (["gradledger", name, near(weights), "--data", data] for name in ("evaluate", "predict"))
    return [shlex.join(evaluate + rest), shlex.join(predict + rest + skip)]


def done(output: Path) -> str:
    """The end of a sentence about a run that nothing can take back."""
    return f"; the run is finished and saved in {output}"


def become(folder: "RunFolder", kept: str, as_json: bool) -> None:
    """Turn this process into the one that ends `adapt`: same number, streams and lock, and none of its memory.

    kept: the end of a sentence that says what is saved and how to go on. Returns only where the system cannot do that.
    A signal that comes meanwhile waits for `main`, which can say what is saved.
    """
    from .run_folder import RECORD

    sys.stdout.flush()
    sys.stderr.flush()
    left = {"folder": str(folder.path), "record": str(folder.staged / RECORD), "lock": folder.hand_over()}
    told = json.dumps(left | {"kept": kept, "as_json": as_json})
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers())
    try:
        os.execv(sys.executable, [sys.executable, "-m", "gradledger", "finish", told])
    except OSError:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers())


def main(told: str) -> int:
    """Do what `become` left, and print the record; the exit status."""
    left = json.loads(told)
    output, staged, folder = Path(left["folder"]), Path(left["record"]), None
    try:
        with Stop() as stop:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers())
            drawn = draw_up(staged)
            stop.check()
            from refimpl.storage.checkpoint import (
                CheckpointError,  # only now: these take memory, and what drew up is gone
            )

            from .run_folder import RunFolder

            try:
                with RunFolder.taken_over(output, left["lock"]) as folder:
                    record = commit(folder, drawn, stop)
            except CheckpointError as e:
                raise CheckpointError(f"{e}{left['kept']}") from None
    except KeyboardInterrupt:
        shutil.rmtree(staged.parent, ignore_errors=True)
        tell(f"interrupted{done(output) if folder and folder.finished else left['kept']}")
        return Exit.INTERRUPTED
    return show(record, output, left["as_json"])


def show(record: dict, output: Path, as_json: bool) -> int:
    """Print a record, as JSON or as a table; the exit status, 1 where the run ended worse than it began."""
    from .show import adapted

    try:
        if as_json:
            emit(record)
        else:
            adapted(record)
    except KeyboardInterrupt:
        tell(f"interrupted{done(output)}")
        return Exit.INTERRUPTED
    if not record["ok"]:
        tell(record["reason"])
    return Exit.DONE if record["ok"] else Exit.NO
