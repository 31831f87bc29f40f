"""What a data set is, before anything is trained on it: as plain data for a record, of which a table can be made."""

import numpy as np

from ..storage.files import printable
from .dataset import Dataset
from .on_demand import ends

PARTS = {"train": "train", "validation": "val", "test": "test"}  # in a description → in a data set


def describe(dataset: Dataset) -> dict:
    """The data set in numbers, texts and lists that JSON holds.

    name; kind of source; samples of each part; classes: name → samples of each part; shape [H, W, C]; values: source
    (the least and the largest before any scaling, None where not known) and training (as they are now); split: how
    parts were chosen; labels: label as given → class number; groups: how many train; skipped, ignored: {what, why} of
    bad ones left out and of foreign ones; decided: what no option said; missing: classes of which nothing judges;
    preprocessing: what `Preprocessing.from_json` takes.
    """
    origin = dataset.origin
    labels = {part: y for part, field in PARTS.items() if (y := getattr(dataset, f"y_{field}")) is not None}
    counts = {part: np.bincount(y, minlength=len(dataset.classes)).tolist() for part, y in labels.items()}
    classes = {name: {part: n[i] for part, n in counts.items()} for i, name in enumerate(dataset.classes)}
    return {
        "name": dataset.name,
        "kind": origin.kind,
        "samples": {part: len(y) for part, y in labels.items()},
        "classes": classes,
        "shape": list(dataset.x_train.shape[1:]),
        "values": {
            "source": None if origin.values is None else [float(v) for v in origin.values],
            "training": [float(v) for v in ends(dataset.x_train)],
        },
        "split": printable(origin.split),
        "labels": {printable(given): number for given, number in origin.labels},
        "groups": None if dataset.groups is None else len(np.unique(dataset.groups)),
        "skipped": _listed(origin.skipped),
        "ignored": _listed(origin.ignored),
        "decided": [printable(words) for words in origin.said],
        "missing": [name for name, n in classes.items() if not n["test"]],
        "preprocessing": origin.preprocessing.to_json(),
    }


def _listed(found: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    return [{"what": printable(what), "why": printable(why)} for what, why in found]
