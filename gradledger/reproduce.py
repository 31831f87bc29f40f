"""`gradledger reproduce NAME`: run an experiment of `validation` again, or judge the runs of its record anew."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from refimpl.storage import checkpoint
from validation.experiments import (
    advice_outcomes,
    filter_shares,
    forward_gradients,
    gradient_errors,
    lenet_mnist,
    loss_landscape,
    noniid,
    onnx_gauntlet,
    outcomes,
    quantized_lenet,
    quantized_noniid,
    quantized_resnet,
    quantized_scaling,
    sparse_mobilenet,
    tables,
    timing,
    whole_onnx,
)  # fmt: skip
from validation.experiments import watch as watch_data
from validation.instruments import equations, mutants
from validation.instruments.provenance import command, provenance, versions

from .errors import Malformed, Refused, unknown
from .finish import plot
from .output import make_folder
from .plot import EXPERIMENTS as DRAWN

EXPERIMENTS = {
    tables.NAME: tables.run,
    gradient_errors.NAME: gradient_errors.run,
    "equations": lambda output, watch: equations.reproduce(output),
    mutants.NAME: mutants.run,
    "watch-nets": lambda output, watch: watch_data.train_nets(output / "watch_nets.safetensors", watch),
    "watch-adapt": lambda output, watch: watch_data.leave_one_out(watch),
    noniid.NAME: noniid.run,
    lenet_mnist.NAME: lenet_mnist.run,
    quantized_lenet.NAME: quantized_lenet.run,
    quantized_noniid.NAME: quantized_noniid.run,
    quantized_resnet.NAME: quantized_resnet.run,
    filter_shares.NAME: filter_shares.run,
    sparse_mobilenet.NAME: sparse_mobilenet.run,
    timing.NAME: timing.run,
    loss_landscape.NAME: loss_landscape.run,
    quantized_scaling.NAME: quantized_scaling.run,
    **{name: partial(outcomes.run, name) for name in outcomes.PROTOCOLS},
    advice_outcomes.NAME: advice_outcomes.run,
    onnx_gauntlet.NAME: onnx_gauntlet.run,
    whole_onnx.NAME: whole_onnx.run,
    **{name: partial(forward_gradients.run, name) for name in forward_gradients.TASKS},
}
MANY_RUNS = (
    noniid, lenet_mnist, quantized_lenet, quantized_noniid, quantized_resnet, quantized_scaling, sparse_mobilenet,
    advice_outcomes, whole_onnx,
)  # fmt: skip
JUDGED = {module.NAME: module for module in MANY_RUNS}
JUDGED |= {onnx_gauntlet.NAME: onnx_gauntlet}
JUDGED |= dict.fromkeys(forward_gradients.TASKS, forward_gradients) | dict.fromkeys(outcomes.PROTOCOLS, outcomes)


def run(name: str, output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """Run one experiment and write its record into `output`.

    Malformed for an unknown name or an unusable folder; Refused where the record has a `reason` why it is not ok.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    make_folder(output)
    started = time.perf_counter()
    record = EXPERIMENTS[name](output, watch)
    runs = [
        r["train_seconds"] for r in record.get("runs", ()) if "train_seconds" in r
    ]  # also of those that an earlier call made
    trained = {"train_seconds": sum(runs)} if runs else {}
    return _write(output, name, {**record, "seconds": time.perf_counter() - started, **trained, **provenance()})


def judge(name: str, file: Path, output: Path) -> dict:
    """Judge the runs in a record anew, without training, and write the record into `output`.

    Runs, protocol, machine, versions and command stay those of the record; `judged` tells by what they were judged.
    Malformed for an experiment without such a record, a file that is none, or an unusable folder.
    """
    if name not in JUDGED:
        raise unknown("experiment whose runs can be judged anew", name, JUDGED)
    wanted = f"--judge takes the record that gradledger reproduce {name} wrote"
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise Malformed(f"cannot read {file}: {e.strerror}; {wanted}") from None
    except ValueError:
        raise Malformed(f"{file} is not JSON; {wanted}") from None
    if not isinstance(given, dict) or given.get("name") != name:
        raise Malformed(f"{file} is no record of {name}; {wanted}")
    try:
        made = JUDGED[name].judge(given)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise Malformed(f"the runs of {file} are not those of {name}; {wanted}") from None
    make_folder(output)
    kept = {key: given[key] for key in ("protocol", "runs") if key in given}
    given.pop("goal", None)
    return _write(output, name, {**given, **made, **kept, "judged": {"versions": versions(), "command": command()}})


def _write(output: Path, name: str, record: dict) -> dict:
    """Write a record and draw it; Refused where it has a `reason` why it is not ok."""
    path = output / f"{name}.json"
    checkpoint.write_json(path, record)
    if name in DRAWN:
        record["picture"] = plot(output, name)
    record["file"] = str(path)
    if record.get("reason"):
        raise Refused(record["reason"], record)
    return record
