"""`gradledger evaluate`: how well a net tells the classes of a data set, and which it takes for each other."""

from pathlib import Path

import numpy as np

from refimpl import data
from refimpl.data import new_samples
from refimpl.data.dataset import DataError, Dataset
from refimpl.saved.labels import listed
from refimpl.saved.model import Model
from refimpl.saved.verdict import judged
from refimpl.storage import checkpoint

from . import door, finish, numbered, options
from .errors import Malformed, unknown
from .output import make_folder

PARTS = ("test", "train", "val", "all")
RECORD, PICTURE = "evaluate.json", "confusion.png"


def run(
    file: str, source: str, part: str, subject: int | None, seed: int | None, threads: int | None,
    output: Path | None = None, pixels: str | None = None, skip_bad: bool = False,
) -> dict:  # fmt: skip
    """The record, which is written into `output` with a picture of the confusion table.

    output: default a new folder `evaluate-1`, …, in that of the run that made the file, else in gradledger-out. part:
    of the data, test, train, val or all; a source that is not split is split by the seed, default that of the net's own
    training; pixels: as `door.load`; skip_bad: leave out what cannot be used, as where the net's own training did.
    Classes go by name. Raises CheckpointError, DataError, Malformed.
    """
    if part not in PARTS:
        raise unknown("part", part, PARTS)
    options.threads(threads)
    model = door.load(file, threads=threads, pixels=pixels)
    recipe = model.saved.recipe if model.saved else {}
    seed = recipe.get("seed", 0) if seed is None else seed
    options.seed(seed)
    subject = recipe.get("subject") if subject is None and source == "watch" else subject
    read = recipe | ({"skip_bad": True} if skip_bad else {})
    d = new_samples.judged_set(source, model.preprocessing, subject, seed, read)
    names, true, told = told_of(model, d, file, PARTS[:3] if part == "all" else (part,))
    verdict = judged(model.classes, true, told)
    record = {
        "ok": True,
        "name": "evaluate",
        "file": file,
        "weights_sha256": model.saved.sha256 if model.saved else None,
        "model": model.graph.name,
        "data": source,
        "data_name": d.name,
        "part": part,
        "seed": seed,
        "samples": verdict.samples,
        "left": 0 if recipe.get("data") == d.name else samples_of(d) - verdict.samples,
        "accuracy": verdict.accuracy,
        "per_class": verdict.per_class,
        "classes": list(verdict.classes),
        "confusion": verdict.confusion.tolist(),
        "confused": verdict.confused(names),
        "skipped": [{"what": what, "why": why} for what, why in d.origin.skipped],
    }
    with numbered.numbered_folder(output, numbered.evaluations(Path(file)), numbered.EVALUATION) as folder:
        make_folder(folder)
        checkpoint.write_json(folder / RECORD, record)
        picture = finish.make("plot", folder / RECORD, folder / PICTURE)
    return record | {"files": {"record": str(folder / RECORD), "plot": picture}}


def samples_of(d: Dataset) -> int:
    """The samples of all parts of the data."""
    return sum(len(y) for y in (d.y_train, d.y_test, d.y_val) if y is not None)


def told_of(model: Model, d: Dataset, file: str, parts: tuple[str, ...]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Samples' names, their classes and those that the net told, as numbers of its own classes."""
    check_names(model, d, file)
    names, true, told = [], [], []
    for part in parts:
        if getattr(d, f"x_{part}") is None:
            continue
        for called, maps in new_samples.of_part(d, part, model.preprocessing, model.trainer.program.batch):
            names += called
            told.append(model.trainer.predict(maps).argmax(1))
        true.append(model.numbers(np.array(d.classes)[getattr(d, f"y_{part}")], len(getattr(d, f"y_{part}"))))
    if not names:
        raise DataError(f"{d.name} has no samples of the part {parts[0]}: --part all takes those that there are")
    return names, np.concatenate(true), np.concatenate(told)


def check_names(model: Model, d: data.Dataset, file: str) -> None:
    """Malformed where the data have a class that the net does not know.

    A net without names of classes gets those of data with as many, in their order.
    """
    if not any(model.graph.classes) and len(model.classes) == len(d.classes):
        model.classes = d.classes
    if strange := [name for name in d.classes if name not in model.classes]:
        if not any(model.graph.classes):
            hint = f"its classes have no names, so that the data need all {len(model.classes)} of them, in their order"
        elif len(d.classes) > 1:
            hint = "gradledger adapt with these data gives it rows for them"
        else:
            hint = "a class is told by the name of its folder"
        raise Malformed(
            f"{d.name} has the classes {listed(strange)}, which {file} does not know: it knows "
            f"{listed(model.classes)}; {hint}"
        )
