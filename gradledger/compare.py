"""`gradledger compare`: what methods cost until they reach the same accuracy, from the record of an experiment."""

from dataclasses import dataclass
from pathlib import Path

from costmodel import predict
from costmodel.advice import convergence
from costmodel.device.device import Device
from refimpl.storage import files
from validation.experiments import forward_gradients, lenet_mnist, sparse_mobilenet
from validation.instruments.provenance import provenance

from . import options
from .errors import Malformed, Refused

MOST = 1e30  # steps or operations of a run
SOURCES = {  # record → module that knows its curves and programs
    lenet_mnist.NAME: lenet_mnist,
    sparse_mobilenet.NAME: sparse_mobilenet,
    **dict.fromkeys(forward_gradients.TASKS, forward_gradients),
}


@dataclass
class CompareSettings:
    """What is compared: accuracy in percent, default the highest that all runs reach."""

    file: Path
    accuracy: float | None = None
    device: str | None = None


def run(settings: CompareSettings) -> dict:
    """Compare the methods of a record at equal accuracy; returns the record of that.

    Malformed for a file that is no record with learning curves, an accuracy that is no percentage, a bad device;
    Refused where no run reaches the accuracy.
    """
    if settings.accuracy is not None and not 0 < settings.accuracy <= 100:
        raise Malformed(f"--accuracy is a percentage between 0 and 100, got {settings.accuracy:g}")
    if settings.accuracy is not None and settings.accuracy <= 1:
        raise Malformed(f"--accuracy is in percent, such as 98, got {settings.accuracy:g}")
    on = None if settings.device is None else options.device(settings.device)
    given = load(settings.file)
    source = SOURCES[given["name"]]
    wrong = "are not those that gradledger reproduce writes"
    with files.reading(f"the runs of {settings.file}", Malformed, wrong):  # weights that are missing say so themselves
        curves = source.curves(given)
        check(curves)
        programs = source.programs(given) if on else {}
        groups = {g: at_equal_accuracy(methods, settings, programs.get(g), on) for g, methods in curves.items()}
    if not any(row["reached"] for group in groups.values() for row in group["methods"]):
        best = highest(curves)
        raise Refused(
            f"no run in {settings.file} reaches {settings.accuracy:g} %: the highest accuracy is {100 * best:.6g} %",
            {"file": str(settings.file), "accuracy": settings.accuracy / 100, "highest_accuracy": best},
        )
    return {
        "ok": True,
        "name": given["name"],
        "file": str(settings.file),
        "device": on.name if on else None,
        "device_measured": on.measured if on else None,
        "groups": groups,
        **provenance(),
    }


def at_equal_accuracy(
    curves: dict[str, list], settings: CompareSettings, programs: dict | None, on: Device | None
) -> dict:
    """The accuracy that is reached, and what each method costs until then."""
    target = convergence.common(curves) if settings.accuracy is None else settings.accuracy / 100
    estimates = {m: predict.estimate(programs[m], device=on) for m in curves} if on else None
    return {"accuracy": target, "methods": convergence.compare(curves, target, estimates)}


def check(curves: dict[str, dict[str, list]]) -> None:
    """ValueError unless there are curves: rising points (steps, operations, accuracy), at least one in each."""
    if not all(curves.values()) or not curves:
        raise ValueError("there are none")
    for methods in curves.values():
        for method, runs in methods.items():
            for curve in runs:
                if not curve:
                    raise ValueError(f"{files.quoted(method)} has an empty curve")
                before = (0, 0)
                for point in curve:
                    steps, macs, accuracy = point
                    right = all(type(v) in (int, float) for v in point) and 0 <= accuracy <= 1
                    if not (right and before[0] < steps <= MOST and before[1] < macs <= MOST):
                        raise ValueError(f"{files.quoted(method)} has the point {files.quoted(point)}")
                    before = steps, macs


def highest(curves: dict[str, dict[str, list]]) -> float:
    """The highest accuracy that any run of any group reaches."""
    return max(point[2] for methods in curves.values() for runs in methods.values() for run in runs for point in run)


def load(path: Path) -> dict:
    """The record in a file; Malformed where it is none that has learning curves."""
    wanted = f"gradledger compare reads the record of {' or '.join(SOURCES)}"
    given = files.read_json(path, str(path), Malformed, wanted)
    if not isinstance(given, dict) or given.get("name") not in list(SOURCES):
        raise Malformed(f"{path} has no learning curves; {wanted}")
    return given
