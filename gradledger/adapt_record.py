"""What a finished adaptation says of itself: accuracy before and after, predicted beside measured cost."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

import refimpl as ri
from refimpl import data, kernel

from . import ledger
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


def make_record(job: "Job", before: np.ndarray, after: np.ndarray, step_seconds: list[float]) -> dict:
    """The JSON record: results, and predicted beside measured cost, of a resumed run of all its parts."""
    from validation import measured

    program, trainer, d = job.program, job.trainer, job.dataset
    sizes = batches(len(d.x_train), program.batch, trainer.step)
    operations = ledger.of(job, sizes)
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
        "predicted": {
            "macs": operations["predicted"]["macs"],
            "peak_bytes": program.peak_bytes,
            "step_seconds": operations["predicted"]["step_seconds"],
        },
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
        **entered(job, sizes),
        "recall": {
            name: {"before": b, "after": a} for name, b, a in zip(d.classes, recall(before), recall(after), strict=True)
        },
        "losses": trainer.losses,
        "compiled_kernels": kernel.cache_misses(),
        "settings": asdict(job.settings),
        **provenance(),
    }


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
