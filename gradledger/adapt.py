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
from refimpl import checkpoint, data, kernel
from refimpl.methods import filter_shares
from refimpl.train import NonFiniteError

from . import ledger, options
from .errors import Malformed, Refused
from .models import origin, pretrained
from .output import make_folder, plot
from .record import provenance

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


def run(settings: Settings, output: Path, resume: bool, watch: Callable[[ri.Progress], None]) -> dict:
    """Adapt and write weights, record and plot into `output`; returns the record.

    watch: called after each step. Raises Malformed, Refused (NaN loss, memory limit) or Interrupted, all saved.
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
    record["files"] = {"weights": str(output / "adapted.safetensors"), "record": str(output / "adapt.json")}
    record["files"]["plot"] = plot(output, "adapt")
    return record


def train(job: Job, output: Path, before: np.ndarray, step_seconds: list[float], watch, resumable: bool) -> None:
    """Take the steps that are left and append the seconds of each; Ctrl-C saves and raises Interrupted.

    resumable: does `output` hold this run already, for the case of a second Ctrl-C, which cuts a step in half?
    """
    trainer, d, stop = job.trainer, job.dataset, StopFlag()
    last_save = mark = time.perf_counter()
    try:
        with stop:
            for progress in trainer.steps(d.x_train, d.y_train, job.settings.epochs):
                now = time.perf_counter()
                step_seconds.append(now - mark)
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
    step_seconds: list[float]
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
            np.array(json.loads(notes["before"])), json.loads(notes["step_seconds"]),
            ledger.counted(json.loads(notes["made"])),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        raise Malformed(f"{path} is no run that this version can resume: leave --resume out to start anew") from None


def save_run(
    output: Path, settings: Settings, trainer: ri.Trainer, before: np.ndarray, step_seconds: list[float]
) -> None:
    """Write what --resume needs: weights, optimizer arrays, step number, settings, and what the steps cost so far."""
    notes = {
        "settings": json.dumps(asdict(settings)),
        "step": str(trainer.step),
        "losses": json.dumps(trainer.losses),
        "before": json.dumps(before.tolist()),
        "step_seconds": json.dumps(step_seconds),
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


def confusion(trainer: ri.Trainer, d: data.Dataset) -> np.ndarray:
    """Counts (true class, predicted class) on the evaluation data; a model may know more classes than the data."""
    outputs = trainer.program.step.host_reads["output"].shape[1]
    table = np.zeros((len(d.classes), outputs), np.int64)
    np.add.at(table, (d.y_test, trainer.predict(d.x_test).argmax(1)), 1)
    return table


def accuracy(table: np.ndarray) -> float:
    """Share on the diagonal of a confusion table."""
    return float(np.trace(table) / table.sum())


def recall(table: np.ndarray) -> list[float | None]:
    """Share found of each class; None where the evaluation data have none of it."""
    return [float(table[i, i] / n) if (n := table[i].sum()) else None for i in range(len(table))]


def make_record(job: Job, before: np.ndarray, after: np.ndarray, step_seconds: list[float]) -> dict:
    """The JSON record: results, and predicted beside measured cost, of a resumed run of all its parts."""
    from validation import measured

    program, trainer, d = job.program, job.trainer, job.dataset
    sizes = batches(len(d.x_train), program.batch, trainer.step)
    losses = first_losses(job)
    operations = ledger.of(job, sizes, losses)
    touched = measured.touched_bytes(program, d.x_train, d.y_train, trainer.parameters, trainer.whole.block)
    return {
        "ok": True,
        "model": job.settings.model,
        "data": job.settings.data,
        "data_name": d.name,
        "subject": job.settings.subject,
        "method": job.method,
        "weights": origin(program.graph),
        "accuracy_before": accuracy(before),
        "accuracy_after": accuracy(after),
        "steps": trainer.step,
        "seconds": sum(step_seconds),
        "predicted": operations["predicted"] | {"peak_bytes": program.peak_bytes},
        "measured": {
            "macs": operations["measured"]["macs"],
            "peak_bytes": touched,
            "step_seconds": float(np.median(step_seconds)) if step_seconds else None,
        },
        "memory": {
            "state_bytes": program.state_bytes,
            "constant_bytes": program.constant_bytes,
            "saved_bytes": program.saved_bytes,
        },
        "samples": {"train": len(d.x_train), "test": len(d.x_test)},
        **entered(job, sizes, losses),
        "recall": {
            name: {"before": b, "after": a} for name, b, a in zip(d.classes, recall(before), recall(after), strict=True)
        },
        "losses": trainer.losses,
        "compiled_kernels": kernel.cache_misses(),
        "settings": asdict(job.settings),
        **provenance(),
    }


def first_losses(job: Job) -> list[float] | None:
    """Losses of some instances under the first weights, where they tell how much enters: for the instance filter."""
    if not isinstance(job.program.plan.instances, ri.InstanceFilter):
        return None
    first = ri.Trainer(job.program, job.settings.seed, block=job.trainer.whole.block)
    return filter_shares.first_losses(first, job.dataset.x_train, job.dataset.y_train).tolist()


def entered(job: Job, batches: list[int], losses: list[float] | None) -> dict:
    """Where a method chooses what enters a step: each section's share of the samples.

    As planned, between the bounds `planned_low` and `planned_high`, and as it came out, `realised`.
    """
    total = sum(batches)
    if job.program.plan.instances is None or not total:
        return {}
    sections, planned, realised = job.program.sections, {}, Counter()
    for bound, program in job.program.over(len(batches), losses).items():
        planned[bound] = Counter()
        for n in batches:
            share = program.plan.instances.steps_share
            planned[bound].update({s: k * share for s, k in program.samples(n).items()})
    for made in job.trainer.made.values():
        for (section, n), times in made.items():
            realised[section] += n * times
    ends = {end: {s: of(p[s] for p in planned.values()) for s in sections} for end, of in (("low", min), ("high", max))}
    found = {"planned": planned["mid"], **{f"planned_{end}": n for end, n in ends.items()}, "realised": realised}
    return {"shares": {name: {s: counts[s] / total for s in sections} for name, counts in found.items()}}


def batches(samples: int, batch: int, steps: int) -> list[int]:
    """Batch size of each of the first `steps` steps."""
    sizes = [batch] * (samples // batch) + ([samples % batch] if samples % batch else [])
    return (sizes * -(-steps // len(sizes)))[:steps]
