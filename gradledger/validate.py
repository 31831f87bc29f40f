"""`gradledger validate`: what the approximate gradients cost in error, and is the rest true on this machine?"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import refimpl as ri
from costmodel import predict
from refimpl import checkpoint, data
from refimpl.graph import Graph
from refimpl.train import NonFiniteError
from validation import counting, errors, measured, spectrum

from . import options
from .adapt import make_folder, plot, watched
from .errors import Malformed, Refused
from .models import pretrained
from .record import provenance

TOLERANCE = 1e-4  # largest relative error of float32 kernels against float64 that passes
PRETRAINING_BATCH = 64


@dataclass
class Settings:
    """What decides the figures."""

    model: str = "watch"
    data: str = "watch"
    subject: int = 1
    method: list[str] = field(default_factory=lambda: ["gradient-filter:patch=2"])
    train_last: str | None = None
    batch: int = 32
    batches: int = 8
    epochs: int = 1  # of training first, for a model that comes without weights
    classes: int | None = None
    size: str | None = None
    seed: int = 0


def run(settings: Settings, output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """Compare gradients, count operations, measure memory; write record and plot into `output`; returns the record.

    Malformed for a bad value, Refused where a check fails.
    """
    for name in ("batch", "batches", "classes"):
        options.at_least_1(name, getattr(settings, name))
    if settings.epochs < 0:
        raise Malformed(f"--epochs must be at least 0, got {settings.epochs}")
    options.seed(settings.seed)
    methods = options.methods(settings.method)
    plan = options.plan(methods, settings.train_last, None)
    size = options.size(settings.size)
    d = data.load(settings.data, subject=watched(settings), size=size, seed=settings.seed)
    graph = pretrained(settings.model, d, watched(settings), settings.classes)
    d = d.with_pixels(*graph.pixels)
    x, y = d.x_train, d.y_train
    try:
        program = ri.compile(graph, plan, settings.batch)
        errors.check_samples(settings.batch, settings.batches, len(x))
        errors.convolutions(graph, plan)
    except ri.ShapeError:
        raise
    except ValueError as e:
        raise Malformed(str(e)) from None
    make_folder(output)
    weights = train_missing(graph, d, settings, watch)
    found = errors.gradient_errors(graph, plan, x, y, settings.batch, settings.batches, settings.seed, watch)
    watch(settings.batches, settings.batches, "checks")
    kernels = errors.kernel_errors(graph, plan, x[: settings.batch], y[: settings.batch], seed=settings.seed)
    ratios = [e["filter"]["energy_ratio"] for e in found if e["filter"] and e["filter"]["energy_ratio"] is not None]
    record = {
        "ok": True,
        "model": settings.model,
        "data": settings.data,
        "subject": settings.subject if d.name == "watch" else None,
        "method": methods.text,
        "train_last": plan.train_last,
        "weights": weights,
        "batch": settings.batch,
        "batches": settings.batches,
        "seed": settings.seed,
        "gradients": {
            "checked": len(kernels),
            "max_rel_err": max(kernels.values()),
            "tolerance": TOLERANCE,
            "errors": found,
            "energy_ratio": float(np.mean(ratios)) if ratios else None,
            "energy_ratio_published": spectrum.TABLE_5,
        },
        "counts": counts(program),
        "memory": {
            "predicted_peak_bytes": program.peak_bytes,
            "measured_peak_bytes": measured.touched_bytes(program, x, y, ri.train.initial(program, settings.seed)),
        },
        "time": {},
        **provenance(),
    }
    failed = failures(record)
    record["ok"] = not failed
    checkpoint.write_json(output / "validate.json", record)
    record["files"] = {"record": str(output / "validate.json"), "plot": plot(output, "validate")}
    if failed:
        raise Refused("; ".join(failed), record)
    return record


def train_missing(graph: Graph, d: data.Dataset, settings: Settings, watch: Callable[[int, int, str], None]) -> str:
    """Train what comes without weights, for the errors of random ones say little; returns where the weights are from.

    Without any, everything trains; a net of which only a part is missing, as the classifier of another data set,
    trains its classifier.
    """
    missing = [name for name in graph.parameters if name not in graph.weights]
    if not missing:
        return "pre-trained"
    origin = f"pre-trained but for {', '.join(missing)}, which are " if graph.weights else ""
    if not settings.epochs:
        return f"{origin}random, from the seed: --epochs 1 trains them first"
    step = ri.Backprop(ri.SGD(lr=0.05, momentum=0.9, schedule=ri.Schedule("cosine")))
    plan = ri.Plan(0, step=step) if graph.weights else ri.Plan("all", step=step, batch_norm="train", train_bias=True)
    try:
        trainer = ri.Trainer(ri.compile(graph, plan, min(PRETRAINING_BATCH, len(d.x_train))), settings.seed)
        for progress in trainer.steps(d.x_train, d.y_train, settings.epochs):
            watch(progress.step, progress.steps, "training first")
    except NonFiniteError as e:
        raise Refused(f"the model has no weights, and training them first failed: {e}") from None
    except ValueError as e:
        raise Malformed(f"the model has no weights, and cannot be trained first: {e}") from None
    graph.weights = trainer.parameters
    epochs = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    return f"{origin}trained here first, for {epochs} of back-propagation"


def counts(program: ri.Program) -> dict[str, int]:
    """Of how many calls the formulas were checked against counted loops, and how many disagree."""
    wrong = [c for c in program.step if predict.call_counts(c, program.batch) != counting.count_call(c, program.batch)]
    return {"checked": sum(1 for _ in program.step), "mismatches": len(wrong)}


def failures(record: dict) -> list[str]:
    """What is not as it should be, in words; an approximation's error is its price and no failure."""
    g, c, m = record["gradients"], record["counts"], record["memory"]
    failed = []
    if not g["max_rel_err"] <= g["tolerance"]:
        failed.append(
            f"a gradient of the fast kernels is off by {g['max_rel_err']:.1e} of the float64 reference, where at most "
            f"{g['tolerance']:.0e} is rounding"
        )
    if c["mismatches"]:
        failed.append(f"{c['mismatches']} of {c['checked']} calls do other operations than their formulas say")
    if m["measured_peak_bytes"] != m["predicted_peak_bytes"]:
        failed.append(
            f"a step touched {m['measured_peak_bytes']:,} bytes of the arena, where {m['predicted_peak_bytes']:,} were "
            "predicted"
        )
    return failed
