"""`gradledger predict`: what a net tells of new samples, and how sure it is."""

import csv
import io
from collections import Counter
from pathlib import Path

import numpy as np

from refimpl.saved.model import Model
from refimpl.storage import checkpoint

from . import door, options
from .errors import Malformed

TOP = 3  # classes that are told of each sample


def run(
    file: str, data: str, top: int, to_csv: Path | None, subject: int | None, threads: int | None,
    sample: int | None = None, pixels: str | None = None, skip_bad: bool = False,
) -> dict:  # fmt: skip
    """The record: of each sample its source, the likeliest class, its share, and the `top` likeliest.

    to_csv: a file for them too. sample: the number of the only one that is told, from 0. pixels: as `door.load`.
    skip_bad: leave out files and rows that cannot be used, and list them.
    CheckpointError, DataError or Malformed where file, samples or options cannot be used.
    """
    options.at_least_1("top", top)
    options.threads(threads)
    if sample is not None and sample < 0:
        raise Malformed(f"--sample must be a number from 0 up, got {sample}")
    model = door.load(file, threads=threads, pixels=pixels)
    if subject is None and model.saved and data == "watch":
        subject = model.saved.recipe.get("subject")
    left: list[tuple[str, str]] | None = [] if skip_bad else None
    batches = model.predictions(data, subject, left)
    every = (pair for names, shares in batches for pair in zip(names, shares, strict=True))
    found, seen = [], 0
    for name, share in every:
        if sample in (None, seen):
            found.append(told(model, name, share, top))
        seen += 1
        if seen - 1 == sample:
            break
    if not seen:
        raise Malformed(f"{data} holds no samples")
    if not found:
        raise Malformed(f"{data} holds no sample of number {sample}: it has those of 0 to {seen - 1}")
    if to_csv is not None:
        checkpoint.write_atomic(to_csv, [written(found).encode()])
    return {
        "ok": True,
        "file": file,
        "model": model.graph.name,
        "data": data,
        "samples": len(found),
        "counts": dict(Counter(p["class"] for p in found).most_common()),
        "predictions": found,
        "skipped": [{"what": what, "why": why} for what, why in left or ()],
        "csv": None if to_csv is None else str(to_csv),
    }


def told(model: Model, source: str, shares: np.ndarray, top: int) -> dict:
    """What the net tells of one sample of these shares (K,); of equal ones the lower number comes first."""
    order = np.argsort(-shares, kind="stable")[:top]
    likeliest = [{"class": model.classes[i], "probability": float(shares[i])} for i in order]
    return {"source": source, **likeliest[0], "top": likeliest}


def written(predictions: list[dict]) -> str:
    """A table of comma-separated values: source, class, probability, and the next likeliest."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    more = len(predictions[0]["top"])
    head = [f"{name}{'' if i == 1 else i}" for i in range(1, more + 1) for name in ("class", "probability")]
    rows.writerow(["source", *head])
    for p in predictions:
        rows.writerow([p["source"], *(value for t in p["top"] for value in (t["class"], f"{t['probability']:.6f}"))])
    return text.getvalue()
