"""`gradledger compare`: what methods cost until they reach the same accuracy, from the record of an experiment."""

import json
from dataclasses import dataclass
from pathlib import Path

from costmodel import convergence, predict
from costmodel.device import Device
from refimpl.data import DataError
from validation import lenet_mnist, sparse_mobilenet

from . import options
from .errors import Malformed, Refused
from .record import provenance

SOURCES = {lenet_mnist.NAME: lenet_mnist, sparse_mobilenet.NAME: sparse_mobilenet}  # modules with curves, programs


@dataclass
class Settings:
    """What is compared: accuracy in percent, default the highest that all runs reach."""

    file: Path
    accuracy: float | None = None
    device: str | None = None


def run(settings: Settings) -> dict:
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
    try:
        curves = source.curves(given)
        programs = source.programs(given) if on else {}
        groups = {g: at_equal_accuracy(methods, settings, programs.get(g), on) for g, methods in curves.items()}
    except DataError:  # weights that a price takes are missing: it says which
        raise
    except (KeyError, TypeError, ValueError, IndexError):
        raise Malformed(f"the runs of {settings.file} are not those that gradledger reproduce writes") from None
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


def at_equal_accuracy(curves: dict[str, list], settings: Settings, programs: dict | None, on: Device | None) -> dict:
    """The accuracy that is reached, and what each method costs until then."""
    target = convergence.common(curves) if settings.accuracy is None else settings.accuracy / 100
    estimates = {m: predict.estimate(programs[m], device=on) for m in curves} if on else None
    return {"accuracy": target, "methods": convergence.compare(curves, target, estimates)}


def highest(curves: dict[str, dict[str, list]]) -> float:
    """The highest accuracy that any run of any group reaches."""
    return max(point[2] for methods in curves.values() for runs in methods.values() for run in runs for point in run)


def load(path: Path) -> dict:
    """The record in a file; Malformed where it is none that has learning curves."""
    wanted = f"gradledger compare reads the record of {' or '.join(SOURCES)}"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise Malformed(f"cannot read {path}: {e.strerror}; {wanted}") from None
    except ValueError as e:
        raise Malformed(f"{path} is not JSON ({e}); {wanted}") from None
    if not isinstance(given, dict) or given.get("name") not in SOURCES:
        raise Malformed(f"{path} has no learning curves; {wanted}")
    return given
