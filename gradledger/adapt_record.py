"""What a finished adaptation says of itself: accuracy before and after, predicted beside measured cost."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

import refimpl as ri
from refimpl import data, kernel
from refimpl.train import NonFiniteError

from . import ledger, recipe
from .models import origin
from .record import provenance

if TYPE_CHECKING:
    from .adapt import Job


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


def make_record(job: "Job", before: np.ndarray, after: np.ndarray, step_seconds: list[list[float]]) -> dict:
    """The JSON record: results, and predicted beside measured cost, of a resumed run of all its parts.

    What takes memory or the trainer comes last, when weights and record are safe, and is None until then: the measured
    arena (`measure_arena`) and the multiply-adds (`gradledger.ledger`). step_seconds: of each process's steps.
    """
    program, trainer, d = job.program, job.trainer, job.dataset
    sizes = batches(len(d.x_train), program.batch, trainer.step)
    was, is_now = accuracy(before), accuracy(after)
    reason = recipe.worse(was, is_now, job.settings.lr, len(d.x_test))
    return {
        "ok": reason is None,
        **({"reason": reason} if reason else {}),
        "model": job.settings.model,
        "data": job.settings.data,
        "data_name": d.name,
        "subject": job.settings.subject,
        "method": job.method,
        "weights": origin(program.graph),
        "by_default": recipe.reasons(program.plan, program.graph, job.settings.batch),
        "accuracy_before": was,
        "accuracy_after": is_now,
        "kept": "first" if reason else "adapted",
        "steps": trainer.step,
        "seconds": sum(map(sum, step_seconds)),
        "predicted": {
            "macs": None,
            "executed_macs": None,
            "peak_bytes": program.peak_bytes,
            "step_seconds": None,
            "step_seconds_range": None,
            "calibrated": None,
        },
        "measured": {"macs": None, "executed_macs": None, "peak_bytes": None, **step_times(step_seconds)},
        "memory": {
            "state_bytes": program.state_bytes,
            "constant_bytes": program.constant_bytes,
            "saved_bytes": program.saved_bytes,
            "resident_peak_bytes": resident_peak(),
        },
        "samples": {"train": len(d.x_train), "test": len(d.x_test)},
        **entered(job, sizes),
        "recall": {
            name: {"before": b, "after": a} for name, b, a in zip(d.classes, recall(before), recall(after), strict=True)
        },
        "launched": ledger.launched(job, sizes),
        "losses": trainer.losses,
        "compiled_kernels": kernel.cache_misses(),
        "settings": asdict(job.settings),
        **provenance(),
    }


def resident_peak() -> int | None:
    """The most bytes that this process had in memory; None where the system does not tell."""
    from validation import resident

    try:
        return resident.peak()
    except RuntimeError:
        return None


def step_times(step_seconds: list[list[float]]) -> dict[str, float | None]:
    """Seconds of the run's first step, and the median of its steady ones; None where it has none.

    The first step of each process loads kernels, or compiles them, so it is no steady one.
    """
    steady = [s for part in step_seconds for s in part[1:]]
    return {
        "first_step_seconds": next((part[0] for part in step_seconds if part), None),
        "step_seconds": float(np.median(steady)) if steady else None,
    }


def measure_arena(job: "Job") -> int | None:
    """Arena bytes that a step touches; None where it ends before its time. Uses up the trainer: its weights change."""
    from validation import measured

    try:
        return measured.touched_by(job.trainer, job.dataset.x_train, job.dataset.y_train)
    except NonFiniteError:
        return None


def entered(job: "Job", batches: list[int]) -> dict:
    """Where a method chooses what enters a step: each section's share of the samples, as planned and as it came out."""
    rule, total = job.program.plan.instances, sum(batches)
    if rule is None or not total:
        return {}
    planned = Counter()
    for n in batches:
        planned.update({s: k * rule.steps_share for s, k in job.program.samples(n).items()})
    realised = Counter()
    for made in job.trainer.made.values():
        for (section, n), times in made.items():
            realised[section] += n * times
    shares = {name: {s: found[s] / total for s in job.program.sections} for name, found in
              (("planned", planned), ("realised", realised))}  # fmt: skip
    return {"shares": shares}


def batches(samples: int, batch: int, steps: int) -> list[int]:
    """Batch size of each of the first `steps` steps."""
    sizes = [batch] * (samples // batch) + ([samples % batch] if samples % batch else [])
    return (sizes * -(-steps // len(sizes)))[:steps]
