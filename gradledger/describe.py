"""What `adapt` writes into a file of weights about them, so that the file explains itself (`refimpl.saved.described`).

Nothing here depends on the clock, on paths or on the number of threads: equal runs give equal bytes. Seconds are in
the run's record.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from refimpl.data.preprocessing import Preprocessing
from refimpl.recipes.watched import LOWER
from refimpl.saved import described
from refimpl.storage import checkpoint

from .run_folder import RECORD, WEIGHTS, settled

if TYPE_CHECKING:
    from .job import Job

NO_RESULT = ("threads", "memory_limit", "model", "data")  # settings that decide no bit, and paths


def notes(job: "Job") -> dict[str, str]:
    """What is known before a run: preprocessing, what the net was adapted from, the recipe."""
    d, settings = job.dataset, job.settings
    source = Path(settings.model)
    came_from = {"model": source.name, "weights": job.weights}
    if source.is_file():
        came_from["sha256"] = checkpoint.sha256(settled(source))
    decided = {k: v for k, v in asdict(settings).items() if k not in NO_RESULT}
    return described.said(
        preprocessing=preprocessing(job).to_json(),
        adapted_from=came_from,
        recipe=decided | {"method": job.method, "data": d.name},
    )


def preprocessing(job: "Job") -> Preprocessing:
    """How the job's samples were made, with the size and channels that they have; pixels are divided by 255."""
    d, graph = job.dataset, job.program.graph
    made = replace(d.origin.preprocessing, size=d.size, channels=d.channels)
    if not job.pixels or made.divisor != 1:
        return made
    black, white = graph.pixels
    dtype = graph.tensors[graph.inputs[0]].dtype
    return replace(made, divisor=255.0, black=black, white=white, dtype=str(dtype or "float32"))


def totals(record: dict) -> dict:
    """What a run took in all, of its record: mini-batches, samples, multiply-adds, bytes, and what it found.

    The arena is left out: scratch of every thread is in it.
    """
    measured, rate = record["measured"], chosen_rate(record)
    return {
        "steps": record["steps"],
        "samples": sum(samples * times for samples, times in record["launched"]["batches"]),
        "macs": measured["macs"],
        "executed_macs": measured["executed_macs"],
        **({"imacs": measured["imacs"]} if "imacs" in measured else {}),
        "state_bytes": record["memory"]["state_bytes"],
        "saved_bytes": record["memory"]["saved_bytes"],
        **({} if rate is None else {"chosen_lr": rate}),
    }


def chosen_rate(record: dict) -> float | None:
    """The learning rate that the probes of a run chose, before it was lowered; None where none chose one that ran."""
    course = record["course"]
    if not course.get("tried") or not course.get("again", {"made": 1})["made"]:
        return None
    return record["settings"]["lr"] * course["factor"] / LOWER ** course["lowered"]


def complete(folder: Path) -> dict:
    """Add what the run's record knows to the weights in a folder; the record, with the digest of the file.

    CheckpointError where they cannot be written.
    """
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    after = record["accuracy_after"] if record["kept"] == "adapted" else record["accuracy_before"]
    told = described.said(
        ledger=totals(record),
        accuracy={
            "value": after, "before": record["accuracy_before"], "samples": record["samples"]["test"],
            "data": record["data_name"],
        },
    )  # fmt: skip
    arrays, before = checkpoint.load(folder / WEIGHTS, ours=True)
    checkpoint.save(folder / WEIGHTS, arrays, before | told)
    record["weights_sha256"] = checkpoint.sha256(folder / WEIGHTS)
    checkpoint.write_json(folder / RECORD, record)
    return record
