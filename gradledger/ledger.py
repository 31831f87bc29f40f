"""The ledger of a finished run, drawn up by a process of its own: operations predicted and operations counted.

The formulas and the counting arrays would otherwise double the memory of the training process. `of` starts the
process; it compiles the same program from the settings and the shape of the data, with no data.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from refimpl.data import Dataset


def of(job, batches: list[int], losses: list[float] | None = None) -> dict:
    """`{"predicted": {macs, step_seconds}, "measured": {macs}}` of a job's launches.

    Where a method chooses what enters, also `macs_low` and `macs_high`, between which the run is expected.

    batches: samples of each planned step; losses: of some instances before the first one, where they are known. Where
    no process can do it, this one does.
    """
    d = job.dataset
    given = {
        "settings": asdict(job.settings),
        "name": d.name,
        "shape": [len(d.x_train), *d.x_train.shape[1:]],
        "classes": list(d.classes),
        "made": listed(job.trainer.made),
        "batches": sorted(Counter(batches).items()),
        "losses": losses,
    }
    command = [sys.executable, "-m", "gradledger.ledger"]
    try:
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    except OSError:  # no process can be started, as under an emulator
        return draw_up(given)
    return json.loads(done.stdout) if done.returncode == 0 else draw_up(given)


def listed(made: Mapping[frozenset[str], Mapping[tuple[str, int], int]]) -> list:
    """What a trainer's steps ran (`Trainer.made`), as JSON takes it."""
    return [[sorted(d), [[section, n, times] for (section, n), times in ran.items()]] for d, ran in made.items()]


def counted(made: list) -> dict[frozenset[str], Counter]:
    """The opposite of `listed`."""
    return {frozenset(d): Counter({(section, n): times for section, n, times in ran}) for d, ran in made}


def draw_up(given: dict) -> dict:
    """The same in this process."""
    from costmodel import device, predict
    from validation import measured

    from . import adapt

    x = np.broadcast_to(np.float32(0), given["shape"])
    y = np.broadcast_to(np.int64(0), given["shape"][:1])
    dataset = Dataset(given["name"], x, y, x[:0], y[:0], tuple(given["classes"]))
    program = adapt.compiled(adapt.Settings(**given["settings"]), dataset)[0]
    sizes = Counter(dict(given["batches"]))
    programs = program.over(sizes.total(), given["losses"])
    macs = {bound: predict.run_macs(one, sizes.elements()) for bound, one in programs.items()}
    return {
        "predicted": {
            "macs": macs["mid"],
            **({f"macs_{bound}": macs[bound] for bound in ("low", "high")} if program.plan.instances else {}),
            "step_seconds": predict.estimate(programs["mid"], device=device.HERE).seconds["mid"],
        },
        "measured": {"macs": predict.as_macs(measured.all_flops(program, counted(given["made"])))},
    }


if __name__ == "__main__":
    print(json.dumps(draw_up(json.load(sys.stdin))))
