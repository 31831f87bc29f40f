"""The ledger of a finished run: operations predicted, counted and executed; `python -m gradledger.ledger RECORD.json`.

It is drawn up from the record alone, which says what was launched, and goes into it: formulas and counting arrays take
more memory than a small training. The program is compiled again from the settings and the shape of the data.
"""

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from refimpl.data import Dataset

Made = Mapping[frozenset[str], Mapping[tuple[str, int], int]]


def launched(job, batches: list[int], losses: list[float] | None) -> dict:
    """What the ledger needs to know of a job, for its record.

    input: shape of the training data. batches: [samples, how often] of the planned steps. sections: what the steps
    ran, as `listed`. losses: of some instances before the first step, where they tell how much enters.
    """
    return {
        "input": list(job.dataset.x_train.shape),
        "batches": sorted(map(list, Counter(batches).items())),
        "sections": listed(job.trainer.made),
        "losses": losses,
    }


def listed(made: Made) -> list:
    """What a trainer's steps ran (`Trainer.made`), as JSON takes it."""
    return [[sorted(d), [[section, n, times] for (section, n), times in ran.items()]] for d, ran in made.items()]


def counted(made: list) -> dict[frozenset[str], Counter]:
    """The opposite of `listed`."""
    return {frozenset(d): Counter({(section, n): times for section, n, times in ran}) for d, ran in made}


def draw_up(record: dict) -> dict:
    """The record with its multiply-adds, predicted and measured, and the predicted seconds of a step.

    `imacs`, product-accumulates of whole numbers, are there where the run makes any.

    `slow` is the sentence about a step that took far longer, or None.
    """
    from costmodel import predict
    from costmodel.advice import integers
    from costmodel.device import device, gpu, room
    from validation.instruments import measured

    from . import job, recipe_costs, slow

    ran = record["launched"]
    x = np.broadcast_to(np.float32(0), ran["input"])
    y = np.broadcast_to(np.int64(0), ran["input"][:1])
    dataset = Dataset(record["data_name"], x, y, x[:0], y[:0], tuple(record["recall"]))
    settings = job.AdaptSettings(**record["settings"])
    program = job.compiled(settings, dataset, job.net(settings, dataset))[0]
    batches = Counter(dict(ran["batches"]))
    made = counted(ran["sections"])
    peak = record["measured"]["resident_peak_bytes"]  # which this process and the one that waits for it stay below
    if program.backend == gpu.BACKEND:
        here = device.this_gpu()
    else:
        here = device.this_machine(math.inf if peak is None else peak - room.resident(os.getppid()))
    programs = program.over(batches.total(), ran["losses"])
    macs = {bound: predict.run_macs(one, batches.elements()) for bound, one in programs.items()}
    seconds = predict.estimate(programs["mid"], device=here).seconds
    predicted = {
        "macs": macs["mid"],
        **({f"macs_{bound}": macs[bound] for bound in ("low", "high")} if program.plan.instances else {}),
        "executed_macs": predict.run_macs(programs["mid"], batches.elements(), predict.executed_of),
        "step_seconds": seconds["mid"],
        "step_seconds_range": [seconds["low"], seconds["high"]],
        "calibrated": here.measured,
    }
    found = {
        "macs": predict.as_macs(measured.all_flops(program, made)),
        "executed_macs": predict.as_macs(measured.all_flops(program, made, measured.executed_flops)),
    }
    if imacs := integers.run_imacs(programs["mid"], batches.elements()):
        predicted["imacs"], found["imacs"] = imacs, measured.all_flops(program, made, measured.counted_imacs)
    told = slow.advice(record["measured"]["step_seconds"], seconds, program.threads)
    costs = {"predicted": record["predicted"] | predicted, "measured": record["measured"] | found}
    costs["recipe_macs"] = recipe_costs.drawn_up(record, settings, program)
    return record | costs | {"slow": told}


def main(path: str) -> None:
    """Put the ledger into the record of a file."""
    from refimpl.storage import checkpoint

    checkpoint.write_json(Path(path), draw_up(json.loads(Path(path).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(sys.argv[1])
