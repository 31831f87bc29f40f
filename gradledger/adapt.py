"""`gradledger adapt`: adapt a pre-trained model to new data, with predicted and measured cost side by side."""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl import checkpoint, data
from refimpl.train import NonFiniteError

from . import finish, ledger, options
from .adapt_record import confusion, make_record, measure_arena
from .errors import Malformed, Refused
from .models import pretrained
from .output import make_folder

RESUME = "adapt.resume.safetensors"
SAVE_EVERY = 60.0  # seconds between saves of the state that --resume goes on from


class Interrupted(Exception):
    """Ctrl-C; the state is saved."""


@dataclass
class Settings:
    """What decides an adaptation's result; kept with a saved run, so that --resume needs no other option.

    What follows from the methods where it is not given is None here, and filled in by `prepare`.
    """

    model: str = "watch"
    data: str = "watch"
    subject: int | None = None
    method: list[str] = field(default_factory=lambda: ["gradient-filter:patch=2"])
    train_last: str | None = None
    epochs: int = 20
    batch: int = 32
    lr: float = 0.01
    momentum: float | None = None
    seed: int = 0
    classes: int | None = None
    size: str | None = None
    memory_limit: str | None = None
    backend: str = "fast"
    threads: int | None = None


@dataclass
class Job:
    """An adaptation that is ready to run."""

    settings: Settings
    dataset: data.Dataset
    program: ri.Program
    trainer: ri.Trainer
    method: str


def prepare(settings: Settings) -> Job:
    """Load data and model, compile; every bad value ends here, before anything is written."""
    for name in ("epochs", "batch", "classes"):
        options.at_least_1(name, getattr(settings, name))
    options.threads(settings.threads)
    options.seed(settings.seed)
    # what else is wrong with an option is said before data are read
    plan, _ = planned(settings)
    settings = replace(
        settings, train_last=str(plan.train_last), momentum=plan.step.optimizer.momentum, subject=watched(settings)
    )
    options.byte_count(settings.memory_limit)
    size = options.size(settings.size)
    dataset = data.load(settings.data, subject=watched(settings), size=size, seed=settings.seed)
    program, method = compiled(settings, dataset)
    dataset = dataset.with_pixels(*program.graph.pixels)
    return Job(settings, dataset, program, ri.Trainer(program, settings.seed), method)


def watched(settings: Settings) -> int | None:
    """The held-out person of the watch recordings, the first where none is given; other data have none."""
    return 1 if settings.subject is None and settings.data == "watch" else settings.subject


def planned(settings: Settings) -> tuple[ri.Plan, str]:
    """The plan of a run, and its method in full."""
    methods = options.methods(settings.method)
    schedule = ri.Schedule("cosine")
    return options.plan(methods, settings.train_last, settings.momentum, settings.lr, schedule), methods.text


def compiled(settings: Settings, dataset: data.Dataset) -> tuple[ri.Program, str]:
    """The program of a run on a data set (of which only shapes and classes matter), and its method in full."""
    plan, method = planned(settings)
    limit = options.byte_count(settings.memory_limit)
    graph = pretrained(settings.model, dataset, watched(settings), settings.classes)
    try:
        batch = min(settings.batch, len(dataset.x_train))
        program = ri.compile(graph, plan, batch, memory_limit=limit, backend=settings.backend, threads=settings.threads)
    except ri.MemoryLimitError as e:
        raise Refused(str(e), {"model": settings.model, "method": method}) from None
    except ri.ShapeError:
        raise
    except ValueError as e:
        raise Malformed(str(e)) from None
    return program, method


def run(
    settings: Settings, output: Path, resume: bool, watch: Callable[[ri.Progress], None], end: Callable = finish.here
) -> dict | None:
    """Adapt and write weights, record and plot into `output`; returns the record.

    watch: called after each step. end: what makes the rest from the saved record, called with its path and the files;
    its result is returned. Raises Malformed, Refused (NaN loss, memory limit) or Interrupted, all saved.
    """
    saved = read_run(output) if resume else None
    job = prepare(saved.settings if saved else settings)
    make_folder(output)
    trainer, d = job.trainer, job.dataset
    if saved:
        before, step_seconds = saved.before, saved.step_seconds
        try:
            trainer.resume(saved.arrays, saved.step, saved.losses)
        except ValueError as e:
            raise Malformed(f"{output / RESUME} cannot be resumed: {e}") from None
        for dropped, ran in saved.made.items():
            trainer.made.setdefault(dropped, Counter()).update(ran)
    else:
        before, step_seconds = confusion(trainer, d), []
    try:
        train(job, output, before, step_seconds, watch, resumable=saved is not None)
    except NonFiniteError as e:
        weights = output / "adapted.safetensors"
        trainer.save(weights)
        kept = {"model": job.settings.model, "method": job.method, "weights": str(weights)}
        raise Refused(f"{e}; they are in {weights}", kept) from None
    try:
        after = confusion(trainer, d)
        trainer.save(output / "adapted.safetensors")
        record = make_record(job, before, after, step_seconds)
        checkpoint.write_json(output / "adapt.json", record)
    except KeyboardInterrupt:  # the training is done: --resume has only this part left
        save_run(output, job.settings, trainer, before, step_seconds)
        raise Interrupted from None
    (output / RESUME).unlink(missing_ok=True)
    record["measured"]["peak_bytes"] = measure_arena(job)
    checkpoint.write_json(output / "adapt.json", record)
    files = {"weights": str(output / "adapted.safetensors"), "record": str(output / "adapt.json")}
    return end(output / "adapt.json", files)


def train(job: Job, output: Path, before: np.ndarray, step_seconds: list[list[float]], watch, resumable: bool) -> None:
    """Take the steps that are left and append a list of the seconds of each; Ctrl-C saves and raises Interrupted.

    resumable: does `output` hold this run already, for the case of a second Ctrl-C, which cuts a step in half?
    """
    trainer, d, stop = job.trainer, job.dataset, StopFlag()
    step_seconds.append([])  # of this process, whose first step is none like the others
    last_save = mark = time.perf_counter()
    try:
        with stop:
            for progress in trainer.steps(d.x_train, d.y_train, job.settings.epochs):
                now = time.perf_counter()
                step_seconds[-1].append(now - mark)
                watch(progress)
                if stop.asked and progress.step < progress.steps:
                    save_run(output, job.settings, trainer, before, step_seconds)
                    raise Interrupted
                if now - last_save > SAVE_EVERY:
                    save_run(output, job.settings, trainer, before, step_seconds)
                    last_save, resumable = now, True
                mark = time.perf_counter()
    except KeyboardInterrupt:
        if not resumable:
            raise
        raise Interrupted from None


@dataclass
class SavedRun:
    """A run as `save_run` left it."""

    settings: Settings
    arrays: dict[str, np.ndarray]
    step: int
    losses: list[float]
    before: np.ndarray
    step_seconds: list[list[float]]
    made: dict[frozenset[str], Counter]


def read_run(output: Path) -> SavedRun:
    """The interrupted run of a folder; Malformed or CheckpointError where there is none or it is damaged."""
    path = output / RESUME
    if not path.exists():
        raise Malformed(f"{output} holds no interrupted run ({RESUME}) to resume: leave --resume out to start one")
    arrays, notes = checkpoint.load(path)
    try:
        return SavedRun(
            Settings(**json.loads(notes["settings"])), arrays, int(notes["step"]), json.loads(notes["losses"]),
            np.array(json.loads(notes["before"])), json.loads(notes["seconds_of_steps"]),
            ledger.counted(json.loads(notes["made"])),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise Malformed(f"{path} is no run that this version can resume: leave --resume out to start anew") from None


def save_run(
    output: Path, settings: Settings, trainer: ri.Trainer, before: np.ndarray, step_seconds: list[list[float]]
) -> None:
    """Write what --resume needs: weights, optimizer arrays, step number, settings, and what the steps cost so far."""
    notes = {
        "settings": json.dumps(asdict(settings)),
        "step": str(trainer.step),
        "losses": json.dumps(trainer.losses),
        "before": json.dumps(before.tolist()),
        "seconds_of_steps": json.dumps(step_seconds),
        "made": json.dumps(ledger.listed(trainer.made)),
    }
    checkpoint.save(output / RESUME, trainer.resume_arrays(), notes)


class StopFlag:
    """Turns the first Ctrl-C into a flag, so that a step is never cut in half; the second interrupts at once."""

    asked = False

    def __enter__(self):
        self.before = signal.signal(signal.SIGINT, self.ask)
        return self

    def ask(self, *_):
        """Remember the signal."""
        self.asked = True
        signal.signal(signal.SIGINT, self.before)

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self.before)
