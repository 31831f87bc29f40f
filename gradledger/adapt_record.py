"""What a finished adaptation says of itself: accuracy before and after, predicted beside measured cost."""

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

import refimpl as ri
from refimpl import data
from refimpl.kernels import kernel
from refimpl.methods import filter_shares
from refimpl.training.trainer import NonFiniteError
from validation.instruments.provenance import provenance

from . import ledger, recipe

if TYPE_CHECKING:
    from .job import Job


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


def make_record(
    job: "Job", before: np.ndarray, after: np.ndarray, step_seconds: list[float], begun: list[int], first: dict | None
) -> dict:
    """The JSON record: results, and predicted beside measured cost, of a resumed run of all its parts.

    What takes memory or the trainer comes last, when weights and record are safe, and is None until then: the measured
    arena (`measure_arena`) and the multiply-adds (`gradledger.ledger`). begun: numbers of the steps with which
    the run's processes began.
    """
    program, trainer, d = job.program, job.trainer, job.dataset
    sizes, losses = job.course.sizes(), first_losses(job)
    was, is_now = accuracy(before), accuracy(after)
    reason = recipe.worse(was, is_now, job.settings.lr, len(d.x_test))
    return {
        "ok": reason is None,
        **({"reason": reason} if reason else {}),
        "model": job.settings.model,
        "data": job.settings.data,
        "data_name": d.name,
        "data_report": data.describe(d),
        "subject": job.settings.subject,
        "method": job.method,
        "weights": job.weights,
        "by_default": recipe.reasons(program.plan, program.graph, job.settings.batch),
        "accuracy_before": was,
        "accuracy_after": is_now,
        "kept": "first" if reason else "adapted",
        "steps": len(sizes),
        "seconds": sum(step_seconds),
        "predicted": {
            "macs": None,
            "executed_macs": None,
            "peak_bytes": program.peak_bytes,
            "step_seconds": None,
            "step_seconds_range": None,
            "calibrated": None,
        },
        "measured": {
            "macs": None,
            "executed_macs": None,
            "peak_bytes": None,
            **step_times(step_seconds, begun),
            "resident_peak_bytes": resident_peak(),
        },
        "memory": {
            "state_bytes": program.state_bytes,
            "constant_bytes": program.constant_bytes,
            "saved_bytes": program.saved_bytes,
        },
        "samples": {"train": len(d.x_train), "test": len(d.x_test), **held(d)},
        "course": {"recipe": job.settings.recipe, "first": first, **job.course.told()},
        **entered(job, sizes, losses),
        "recall": {
            name: {"before": b, "after": a} for name, b, a in zip(d.classes, recall(before), recall(after), strict=True)
        },
        "launched": ledger.launched(job, sizes, losses),
        "losses": trainer.losses,
        "compiled_kernels": kernel.cache_misses(),
        "settings": asdict(job.settings),
        **provenance(),
    }


def held(d: data.Dataset) -> dict[str, int]:
    """How many samples are held out to judge by, where some are."""
    return {} if d.x_val is None else {"validation": len(d.x_val)}


def resident_peak() -> int | None:
    """The most bytes that this process had in memory; None where the system does not tell."""
    from validation.instruments import resident

    try:
        return resident.peak()
    except RuntimeError:
        return None


def step_times(step_seconds: list[float], begun: list[int]) -> dict[str, float | None]:
    """Seconds of the run's first step, and the median of its steady ones; None where it has none.

    The first step of each process loads kernels, or compiles them, so it is no steady one.
    """
    steady = [s for i, s in enumerate(step_seconds) if i not in begun]
    return {
        "first_step_seconds": step_seconds[0] if step_seconds else None,
        "step_seconds": float(np.median(steady)) if steady else None,
    }


def measure_arena(job: "Job") -> int | None:
    """Arena bytes that a step touches; None where it ends before its time. Uses up the trainer: its weights change."""
    from validation.instruments import measured

    try:
        return measured.touched_by(job.trainer, job.dataset.x_train, job.dataset.y_train)
    except NonFiniteError:
        return None


def first_losses(job: "Job") -> list[float] | None:
    """Losses of some instances under the first weights, where they tell how much enters."""
    choice = job.program.plan.instances
    if choice is None or not choice.by_losses:
        return None
    first = ri.Trainer(job.program, job.settings.seed, block=job.trainer.runner.block)
    return filter_shares.first_losses(first, job.dataset.x_train, job.dataset.y_train).tolist()


def entered(job: "Job", batches: list[int], losses: list[float] | None) -> dict:
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
            planned[bound].update({turn.section: turn.samples * turn.times for turn in program.schedule(n)})
    for made in job.trainer.made.values():
        for (section, n), times in made.items():
            realised[section] += n * times
    ends = {end: {s: of(p[s] for p in planned.values()) for s in sections} for end, of in (("low", min), ("high", max))}
    found = {"planned": planned["mid"], **{f"planned_{end}": n for end, n in ends.items()}, "realised": realised}
    return {"shares": {name: {s: counts[s] / total for s in sections} for name, counts in found.items()}}
