"""Find the model that a command names: built by name, with bundled or saved weights."""

from pathlib import Path

from refimpl import checkpoint, data, models
from refimpl.graph import Graph

from .errors import Malformed


def pretrained(
    name: str, dataset: data.Dataset, subject: int | None, classes: int | None, size: tuple[int, int] | None
) -> Graph:
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
        graph.weights = weights
        return graph
    graph = build(name, found, (height, width), channels)
    if name == "watch" and dataset.name == "watch":
        graph.weights = models.watch_weights(subject)
    return graph


def build(name: str, classes: int, size: tuple[int, int], channels: int) -> Graph:
    """A model by name for an input size."""
    return models.build(name, classes=classes, size=size, channels=channels)
