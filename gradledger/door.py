"""What `import gradledger` offers: `load`, `adapt`, `cost`; each as the command of its name, without a command line."""

import inspect
import os
from pathlib import Path
from typing import Any

from refimpl.saved import model
from refimpl.saved.model import Model


def load(path: str | os.PathLike, seed: int = 0, threads: int | None = None, pixels: str | None = None) -> Model:
    """The model of a file, with `predict`, `evaluate`, `fit`, `save` and `summary` (`refimpl.saved.model`).

    pixels: as `--pixels`, `imagenet` or `LOW,HIGH`, where the file does not say what it takes. CheckpointError in one
    sentence where it is none, Malformed where it takes other pixels.
    """
    from .models import saved, taking

    name = str(path)
    found = model.load(name, seed, threads) if name.endswith(".npz") else model.of_saved(saved(path), seed, threads)
    if pixels is not None:
        graph = taking(found.graph, name, pixels)
        if found.saved is None or found.saved.pixels is None:
            found.preprocessing = model.plain(graph)
    return found


def adapt(*, output: str | os.PathLike | None = None, resume: bool = False, **settings: Any) -> Model:
    """Adapt a net as `gradledger adapt` does, into a folder of its own; the model of the weights that it wrote.

    settings: the command's options, `model`, `data`, `method` (a text or a list), `train_last`, `epochs`, …, with
    underscores; each is given by its name. output: default the next `gradledger-out/run-N`. The record is the model's
    `record`. Raises TypeError for an unknown option, else as `gradledger.adapt.run`.
    """
    from . import adapt as job
    from . import numbered
    from .settings import AdaptSettings

    settings = _known(AdaptSettings, settings)
    with numbered.run_folder(None if output is None else Path(output), resume) as folder:
        record = job.run(AdaptSettings(**settings), folder, resume, lambda progress: None, settings)
    found = load(record["files"]["weights"])
    found.record = record
    return found


def cost(**settings: Any) -> dict:
    """What a training step costs, as `gradledger cost` prices it; the record that --json prints.

    settings: the command's options, with underscores. Raises TypeError for an unknown option, else as
    `gradledger.cost.run`.
    """
    from . import cost as job

    return job.run(job.CostSettings(**_known(job.CostSettings, settings)))


def _known(kind: type, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as a command takes them; TypeError names one that it does not know."""
    known = inspect.signature(kind).parameters
    for name in settings:
        if name not in known:
            raise TypeError(f"there is no option {name!r}; known: {', '.join(known)}")
    found = dict(settings)
    if isinstance(found.get("method"), str):
        found["method"] = [found["method"]]
    if found.get("train_last") is not None:
        found["train_last"] = str(found["train_last"])
    if isinstance(found.get("size"), tuple):
        found["size"] = "x".join(map(str, found["size"]))
    for name in ("model", "data"):
        if isinstance(found.get(name), os.PathLike):
            found[name] = os.fspath(found[name])
    return found
