"""Find the model that a command names: built by name, with bundled or saved weights."""

import re
from pathlib import Path

import numpy as np

from refimpl import checkpoint, data, models
from refimpl.graph import Graph

from .errors import Malformed


def pretrained(name: str, dataset: data.Dataset, subject: int | None, classes: int | None) -> Graph:
    """The graph for a data set: `watch` comes with weights trained without `subject`; a file brings its own.

    Raises ModelError for an unknown name, CheckpointError for a file that is not ours, Malformed where the model does
    not fit the data.
    """
    found = classes or len(dataset.classes)
    if found < len(dataset.classes):
        raise Malformed(f"--classes {found} is too few: {dataset.name} has {len(dataset.classes)} classes")
    height, width, channels = dataset.x_train.shape[1:]
    if name.endswith(".safetensors") or Path(name).is_file():
        weights, notes = checkpoint.load(name)
        if "model" not in notes:
            raise Malformed(f"{name} does not say which model it holds: it has no 'model' in its metadata")
        graph = build(notes["model"], found, (height, width), channels)
        checkpoint.check_arrays(weights, {n: p.shape for n, p in graph.parameters.items()}, name)
        for array, values in weights.items():
            if not np.isfinite(values).all():
                raise Malformed(f"{array} of {name} holds NaN or infinite values: such weights cannot be adapted")
        graph.weights = weights
        return graph
    graph = build(name, found, (height, width), channels)
    if name == "watch" and dataset.name == "watch":
        graph.weights = models.watch_weights(subject)
    return graph


def described(name: str, classes: int | None, size: tuple[int, int] | None) -> Graph:
    """The graph of a model before any data: by name, or as a file of ours describes it; None takes its own value.

    Raises ModelError, CheckpointError, Malformed like `pretrained`.
    """
    if not (name.endswith(".safetensors") or Path(name).is_file()):
        return models.build(name, classes=classes, size=size)
    weights, notes = checkpoint.load(name)
    if "model" not in notes:
        raise Malformed(f"{name} does not say which model it holds: it has no 'model' in its metadata")
    plain = models.build(notes["model"])
    first, last = (f"{plain.nodes[i].name}.w" for i in (0, -1))
    for wanted in (first, last):
        if wanted not in weights:
            raise Malformed(f"{name} has no array {wanted}, which the model {notes['model']} needs")
    saved = tuple(int(n) for n in re.findall(r"\d+", notes.get("size", "")))
    return models.build(
        notes["model"],
        classes=classes or weights[last].shape[-1],
        size=size or (saved if len(saved) == 2 else None),
        channels=weights[first].shape[2],
    )


def build(name: str, classes: int, size: tuple[int, int], channels: int) -> Graph:
    """A model by name for an input size."""
    return models.build(name, classes=classes, size=size, channels=channels)
