"""`gradledger reproduce NAME`: run an experiment of `validation` again."""

import time
from collections.abc import Callable
from pathlib import Path

from refimpl import checkpoint
from validation import equations, filter_shares, gradient_errors, lenet_mnist, noniid, sparse_mobilenet, tables, timing
from validation import watch as watch_data

from .errors import Refused, unknown
from .output import make_folder, plot
from .plot import EXPERIMENTS as DRAWN
from .record import provenance

EXPERIMENTS = {
    tables.NAME: tables.run,
    gradient_errors.NAME: gradient_errors.run,
    "equations": lambda output, watch: equations.reproduce(output),
    "watch-nets": lambda output, watch: watch_data.train_nets(output / "watch_nets.safetensors", watch),
    "watch-adapt": lambda output, watch: watch_data.leave_one_out(watch),
    noniid.NAME: noniid.run,
    lenet_mnist.NAME: lenet_mnist.run,
    filter_shares.NAME: filter_shares.run,
    sparse_mobilenet.NAME: sparse_mobilenet.run,
    timing.NAME: timing.run,
}


def run(name: str, output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """Run one experiment and write its record into `output`.

    Malformed for an unknown name or an unusable folder; Refused where the record has a `reason` why it is not ok.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    make_folder(output)
    started = time.perf_counter()
    record = EXPERIMENTS[name](output, watch)
    runs = [r["train_seconds"] for r in record.get("runs", ())]  # also of those that an earlier call made
    trained = {"train_seconds": sum(runs)} if runs else {}
    record = {**record, "seconds": time.perf_counter() - started, **trained, **provenance()}
    path = output / f"{name}.json"
    checkpoint.write_json(path, record)
    if name in DRAWN:
        record["picture"] = plot(output, name)
    record["file"] = str(path)
    if record.get("reason"):
        raise Refused(record["reason"], record)
    return record
