"""The saved state of a run: what --resume goes on from, and how it is told that it belongs to this run."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from refimpl.data.on_demand import OnDemand
from refimpl.storage import checkpoint

from . import ledger
from .errors import Malformed
from .run_folder import RESUME
from .settings import AdaptSettings, from_json

if TYPE_CHECKING:
    from .job import Job

OWN = "run/"  # before the names of arrays that are the run's and not the trainer's
KEPT = "kept/"  # before those that the course keeps


@dataclass(frozen=True)
class Identity:
    """Digests of the data and of the first weights, and of all that decides a run's result: equal runs, equal bits."""

    data: str
    weights: str
    run: str


def identity(job: "Job") -> Identity:
    """Whose results and state these are. The number of threads, which changes no bit, and paths do not enter."""
    d, graph = job.dataset, job.program.graph
    labels = {f"y_{part.removeprefix('x_')}" for part in d.maps}
    arrays = d.maps | {name: getattr(d, name) for name in sorted(labels)}
    made = {n: a.made_of() for n, a in arrays.items() if isinstance(a, OnDemand)}
    notes = {n: words for n, (_, words) in made.items()} | {"classes": f"{d.classes}"}
    found = checkpoint.digest(arrays | {n: a for n, (a, _) in made.items()}, notes)
    weights = checkpoint.digest({name: np.asarray(a) for name, a in graph.weights.items()})
    settings = {k: v for k, v in asdict(job.settings).items() if k not in ("model", "data", "threads", "memory_limit")}
    decides = [settings | {"method": job.method}, graph.name, str(graph.options), found, weights]
    return Identity(found, weights, hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest())


@dataclass
class SavedRun:
    """A run as `write` left it."""

    settings: AdaptSettings
    identity: Identity
    arrays: dict[str, np.ndarray]
    step: int
    losses: list[float]
    before: np.ndarray
    step_seconds: list[float]
    begun: list[int]  # steps with which the run's processes began
    made: dict[frozenset[str], Counter]
    first: dict | None  # what training the classifier alone gave
    kept: dict[str, np.ndarray]  # of the course
    course: dict

    def check(self, job: "Job", found: Identity, path: Path) -> None:
        """Malformed where the job is not the run of this state, or the state does not fit its plan."""
        for what, name in (("data", job.settings.data), ("weights", job.settings.model)):
            if getattr(found, what) != getattr(self.identity, what):
                raise Malformed(
                    f"the {what} of {name} are not those that the run in {path} began with: put them back, or leave "
                    "--resume out to start anew"
                )
        if found.run != self.identity.run:
            raise Malformed(f"{path} is the state of another run than its settings say: leave --resume out")
        made, most = max(self.step, len(self.step_seconds)), job.course.most
        if made > most:
            raise Malformed(f"{path} is at step {made}, but its plan ends after {most}: leave --resume out")


def read(folder: Path) -> SavedRun:
    """The interrupted run of a folder; Malformed or CheckpointError where there is none or it is damaged."""
    path = folder / RESUME
    if not path.exists():
        raise Malformed(f"{folder} holds no interrupted run ({RESUME}) to resume: leave --resume out to start one")
    arrays, notes = checkpoint.load(path, ours=True)
    try:
        own = {name: arrays.pop(f"{OWN}{name}") for name in ("losses", "step_seconds", "before")}
        kept = {name.removeprefix(KEPT): arrays.pop(name) for name in list(arrays) if name.startswith(KEPT)}
        saved = SavedRun(
            from_json(json.loads(notes["settings"])), Identity(**json.loads(notes["identity"])), arrays,
            int(notes["step"]), own["losses"].tolist(), own["before"], own["step_seconds"].tolist(),
            json.loads(notes["begun"]), ledger.counted(json.loads(notes["made"])), json.loads(notes["first"]), kept,
            json.loads(notes["course"]),
        )  # fmt: skip
        if saved.step < 0 or saved.step != len(saved.losses):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise Malformed(f"{path} is no run that this version can resume: leave --resume out to start anew") from None
    return saved


def write(
    folder: Path, job: "Job", identity: Identity, before: np.ndarray, step_seconds: list[float], begun: list[int],
    first: dict | None,
) -> None:  # fmt: skip
    """Save what --resume needs: weights, optimizer arrays, step number, settings, and what the steps cost so far.

    CheckpointError where it cannot be written.
    """
    trainer, (kept, course) = job.trainer, job.course.saved()
    notes = {
        "settings": json.dumps(asdict(job.settings)),
        "identity": json.dumps(asdict(identity)),
        "step": trainer.step,
        "begun": json.dumps(begun),
        "made": json.dumps(ledger.listed(trainer.made)),
        "first": json.dumps(first),
        "course": json.dumps(course, allow_nan=False),
    }
    own = {"losses": np.array(trainer.losses, np.float64), "step_seconds": np.array(step_seconds), "before": before}
    arrays = {f"{OWN}{n}": a for n, a in own.items()} | {f"{KEPT}{n}": a for n, a in kept.items()}
    checkpoint.save(folder / RESUME, trainer.resume_arrays() | arrays, notes)
